"""What submitit calls in a job: the supervisor, with one sentence at the end if it fails.

An exception would make submitit print its own traceback below the reason.
"""

import time
import traceback

from launch.slurm.supervise.supervisor import RunFailed, supervise


def run_batch(run_dir: str) -> str:
    """Train the run in `run_dir` in this job; return the outcome in words.

    If the run is given up, the job's log ends with the reason, and the job fails.
    """
    try:
        return supervise(run_dir)
    except RunFailed as failure:
        reason, _, report = str(failure).partition("\n")
        print(report, flush=True)
        raise SystemExit(_last_line(f"the run is given up: {reason}")) from None
    except Exception as error:  # noqa: BLE001 - the job fails with it
        traceback.print_exc()
        kind = type(error).__name__
        raise SystemExit(_last_line(f"the job cannot continue: {kind}: {error}")) from None


def _last_line(reason: str) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')} error: {' '.join(reason.split())}"
