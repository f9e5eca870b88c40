"""The shell lines around the supervisor, for when it does not start or is killed."""

import shlex
from pathlib import Path

START_SECONDS = 60
REQUEUE = r"""
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}
failed=$failed-$job  # a line for each start in a row that failed early
requeue() {  # because of $1; without node $2, if that leaves enough nodes
  for _ in $(seq 120); do  # the controller may be restarting
    record=$(scontrol --all --oneliner show job "$job") && break
    sleep 5
  done
  case $record in *" JobState=RUNNING "*) ;; *) return ;; esac
  echo >> "$failed"
  if [ "$(wc -l < "$failed")" -gt 3 ]; then
    echo "the run is given up: $1; to resume it: python launch/resume.py RUN"
    return
  fi
  excluded=$(sed -n 's/.* ExcNodeList=\([^ (]*\).*/\1/p' <<< "$record")
  excluded=${2:+$excluded${excluded:+,}$2}
  nodes=$(scontrol --all --oneliner show partition "$SLURM_JOB_PARTITION")
  nodes=$(sed -n 's/.* TotalNodes=\([0-9]*\).*/\1/p' <<< "$nodes")
  left=$((nodes - $(scontrol show hostnames "$excluded" | wc -l)))
  scontrol requeue "$job"
  if [ -n "$excluded" ] && [ "$left" -ge "$SLURM_JOB_NUM_NODES" ]; then
    for _ in 1 2 3 4 5; do  # SLURM is ending this job, and may end scontrol as well
      scontrol update jobid="$job" ExcNodeList="$excluded" && break
      sleep 1
    done
  fi
  echo "the job is requeued: $1"
}
"""


def lines_before(python: str, folder: Path) -> list[str]:
    """Return the lines that requeue the job, without its first node, if `python` does not start.

    In `folder` they count the starts that failed.
    """
    why = f"{python} does not start on $SLURMD_NODENAME"
    return [
        f"failed={shlex.quote(str(folder))}/failed-starts",
        *REQUEUE.strip().splitlines(),
        f"timeout {START_SECONDS} {python} -c pass || {{",
        f'  requeue "{why}" "$SLURMD_NODENAME"',
        "  exit 1",
        "}",
    ]


def lines_after() -> list[str]:
    """Return the lines that requeue the job if a signal such as SIGKILL ended the supervisor."""
    return [
        "code=$?",
        "case $code in",
        '  13[2-9]) [ "$SECONDS" -lt 600 ] || rm -f "$failed"',
        '    requeue "signal $((code - 128)) ended the supervisor" ;;',
        '  *) rm -f "$failed" ;;',
        "esac",
        "exit $code",
    ]
