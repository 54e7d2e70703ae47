#!/bin/bash
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One run as a SLURM job: the command, once a task, with srun; queued again where it was stopped before its end.
# hydra/launcher=slurm submits it for the jobs of a sweep, and it can be submitted by hand:
#
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=12 --time=24:00:00 --output=run.log \
#       job.sh mathse train +experiment/paper=qwen2vl trainer=fsdp trainer.devices=8 hydra.run.dir=outputs/paper
#
# Name the run folder (hydra.run.dir): a job that comes back goes on in it. It must be on a disk that all nodes see.
#
# MATHSE_SIGNAL_DELAY  seconds from SIGUSR1 to the end of the job's time (120, as in --signal above)
# MATHSE_MAX_REQUEUES  times that the job is queued again (20)
# MATHSE_SETUP         lines of bash that are run first (module load cuda)
# MATHSE_ENGINE        a command that is started once a node, beside the run: an engine that serves at port 8000, or at
#                      MATHSE_ENGINE_PORT; once all answer the run starts, with generator.base_urls=[their addresses]
set -u

# In an array of jobs $1 is a file of commands, a line each, and the job's number picks one.
result=/dev/null
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    result=$(dirname "$1")/$SLURM_ARRAY_TASK_ID.status
    eval "set -- $(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$1")"
fi

state() { squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T 2>/dev/null; }
queue_again() {
    [ "${SLURM_RESTART_COUNT:-0}" -lt "${MATHSE_MAX_REQUEUES:-20}" ] || { echo "job $SLURM_JOB_ID: was queued again ${SLURM_RESTART_COUNT} times already"; return 1; }
    echo "job $SLURM_JOB_ID: queued again"
    scontrol requeue "$SLURM_JOB_ID"
}

# SLURM's signals come to this script; srun hands them on to the tasks, which write a resume point and end.
told= late=
told() {
    told=yes
    kill -USR1 "$run" 2>/dev/null
    # what cannot end in time goes on from the resume point before
    (sleep "$((${MATHSE_SIGNAL_DELAY:-120} * 3 / 4))"; queue_again) >&2 &
    late=$!
}
trap told USR1
trap 'kill -TERM "$run" 2>/dev/null' TERM

eval "${MATHSE_SETUP:-}"
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # srun no longer takes it over

if [ -n "${MATHSE_ENGINE:-}" ]; then
    srun --overlap --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1 bash -c "$MATHSE_ENGINE" &
    engines=$!
    urls=
    for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
        url=http://$node:${MATHSE_ENGINE_PORT:-8000}/v1
        until curl --silent --output /dev/null "$url/models"; do
            kill -0 "$engines" 2>/dev/null || { echo "error: the engine ended before it answered at $url" >&2; exit 1; }
            sleep 2
        done
        urls=$urls,$url
    done
    set -- "$@" "generator.base_urls=[${urls#,}]"
fi

srun --kill-on-bad-exit=1 "$@" &
run=$!
wait "$run"
status=$?
while kill -0 "$run" 2>/dev/null; do  # a trap ended the wait
    wait "$run"
    status=$?
done

[ -z "$late" ] || kill "$late" 2>/dev/null
# 138 and 143: ended by SIGUSR1 or SIGTERM. A job that was cancelled is not running any more.
if [ "$status" -ne 0 ] && { [ -n "$told" ] || [ "$status" -eq 138 ] || [ "$status" -eq 143 ]; } &&
    [ "$(state)" = RUNNING ] && queue_again; then
    exit "$status"
fi
echo "$status" >"$result"
exit "$status"
