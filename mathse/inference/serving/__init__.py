"""Students and the ORM behind an OpenAI-compatible server: vLLM, SGLang, ``transformers serve`` or another.

student.py     generator=server, generator=vllm
model.py       one served checkpoint: its requests, and the comparison of its prompts with the local processor's
dialect.py     requests beyond the OpenAI API's, and the small part of a verdict's reply that is kept
pictures.py    the pictures of requests, losslessly
engines.py     the ways in which a server gets a checkpoint: by its folder, by a name, by a command that starts it
vllm.py        the fourth way: one vLLM with weights that are swapped in place, with held_model.py (a lock on the held
               model), control.py (control requests), in_vllm/ (runs inside vLLM) and probe.py (compares its answers)
process.py     a program that is started as an engine; supervisor.py ends it with the run
address.py     the address of a server: whether it answers, which models it has
names.py       a checkpoint's name at a server: a hash of its contents, so that other weights have another name

mathse/judges/served_orm.py has judge.server=URL and judge.engine=vllm; docs/serving.md has the commands.
"""
