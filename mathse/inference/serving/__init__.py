"""Students and the ORM behind an OpenAI-compatible server: vLLM, SGLang, ``transformers serve``, any other.

names.py         a checkpoint's name at a server: a hash of its contents, so no name stands for two different weights
engines.py       how a server gets a checkpoint: by its folder, or as an adapter that a running vLLM loads
started.py       or by a command of the user's, which is started and stopped here; supervisor.py ends it with the run
health_check.py  the requests that are no chat: does the server answer, which models has it
messages.py      a row as the messages of a request, pictures losslessly
model.py         one served checkpoint, whose count of prompt tokens is compared with the local processor's
student.py       generator=server

mathse/judges/served_orm.py has judge.server=URL, docs/serving.md the commands that start engines.
"""
