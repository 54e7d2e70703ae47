"""Students and the ORM behind an OpenAI-compatible server: vLLM, SGLang, ``transformers serve``, any other.

names.py     what a checkpoint is called: by its contents, so that a name never stands for two different weights
engines.py   how a checkpoint gets behind the server: named by its folder, or its adapter loaded into a running vLLM
started.py   or by a command of the user's, which is started and stopped here; guard.py watches over it
reach.py     the two or three requests that are no chat
prompts.py   a row as the messages of a request, pictures losslessly
model.py     one served checkpoint: asked, and compared with the local processor's count of prompt tokens
student.py   generator=server
judge.py     judge.server=URL

docs/serving.md has the commands that start the engines.
"""
