"""Students and the ORM behind an OpenAI-compatible server: vLLM, SGLang, ``transformers serve``, any other.

student.py   generator=server, generator=vllm
model.py     one served checkpoint: its requests, and the comparison of its prompts with the local processor's
messages.py  a row as the messages of a request; pictures.py: its pictures, losslessly
dialect.py   what requests have beyond the OpenAI API's, and how little of a verdict's reply is kept
engines.py   how a server gets a checkpoint: by its folder, by a name, or by a command that starts an engine
vllm.py      or one vLLM whose weights are swapped in place, with turns.py (for which model at the moment), control.py
             (which requests do it), in_vllm/ (what runs in vLLM itself), probe.py (whose answers are they?)
process.py   a program that is started as an engine; supervisor.py ends it with the run
address.py   where a server is: does it answer, which models has it
names.py     a checkpoint's name at a server: a hash of its contents, so no name stands for two different weights

mathse/judges/served_orm.py has judge.server=URL and judge.engine=vllm, docs/serving.md the commands.
"""
