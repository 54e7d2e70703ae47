# MathSE in a container:
#
#   docker build -t mathse .
#   docker run --rm mathse train experiment=smoke
#   docker run --rm --gpus all --ipc host -v "$PWD:/home/mathse" mathse train data=jsonl data.path=problems.jsonl ...
#
# The image has Python and what pip installs; torch brings its CUDA libraries with it, so a host with a driver is enough.
# The run folders are below the working folder, which is to be a mounted one where they should outlive the container.
FROM python:3.12-slim

# Extras of pyproject.toml, such as hub,lineage,qlora.
ARG EXTRAS=hub,lineage

WORKDIR /opt/mathse
COPY pyproject.toml setup.py README.md LICENSE ./
COPY mathse mathse
COPY hydra_plugins hydra_plugins
COPY conf conf
COPY experiments experiments
# Every package by hash, as `make lock` wrote them; only other EXTRAS bring more.
COPY .ci/docker.lock ./
RUN pip install --no-cache-dir --require-hashes -r docker.lock && pip install --no-cache-dir ".[${EXTRAS}]"

# Not as root: a run folder on a mounted disk belongs to a user.
RUN useradd --create-home mathse
USER mathse
WORKDIR /home/mathse
ENTRYPOINT ["mathse"]
CMD ["--help"]
