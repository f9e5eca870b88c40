"""Training in an allocation that the user already has, such as from salloc, without another job."""

import os
import re
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import FrameType

from launch.local.preflight import Preflight, check
from launch.slurm.api.current_job import CurrentJob
from launch.slurm.follow import GrowingLog, print_new
from launch.slurm.records.attempt import LATEST, LOGS
from launch.slurm.records.submission import JobLayout, expect_no_job
from launch.slurm.submit.code_copy import copy_code
from launch.slurm.submit.sbatch import announce, prepare
from launch.slurm.supervise.restart_policy import Avoid, Cancel, Done, GiveUp, Requeue, Restart
from launch.slurm.supervise.supervisor import run_attempts
from pipeline.config.schema import Config, Slurm
from pipeline.runs.folder import hold_run_folder, own_runs
from pipeline.system.command import plural
from pipeline.system.exit_codes import FAILURE, STOPPED

READ_SECONDS = 0.5
GPUS = re.compile(r"gres[:/]gpu(?::[^:,]+)?:([0-9]+)")


@dataclass(frozen=True)
class AllocationRequest:
    """A configuration that fits the allocation of this process."""

    config: Config
    job: CurrentJob
    layout: JobLayout
    preflight: Preflight

    @classmethod
    def check(cls, config: Config, *, nodes: int) -> "AllocationRequest":
        """Return the request for `nodes` nodes of the allocation; its other nodes are spare.

        Raises `ValueError` for the first mistake.
        """
        if "SLURM_JOB_ID" not in os.environ or "SLURM_JOB_NODELIST" not in os.environ:
            raise ValueError(
                "--in-allocation trains in an allocation of SLURM, but this shell has none; run it"
                " in the shell of salloc, or without --in-allocation to queue a job"
            )
        for run_dir in own_runs(config):
            expect_no_job(run_dir)
        job = CurrentJob.mine()
        spare = len(job.nodes) - nodes
        if spare < 0:
            have = plural(len(job.nodes), "node")
            raise ValueError(f"--nodes {nodes}: job {job.id} has {have}; use at most that many")
        layout = layout_in(config.slurm, job.record(), nodes=nodes, spare=spare)
        return cls(config, job, layout, check(config, ranks=layout.world_size))

    def lines(self) -> list[tuple[str, str]]:
        """Return the summary to print before training, as (name, value)."""
        each = f"each with {plural(self.layout.ranks_per_node, 'rank')}"
        nodes = f"{self.layout.nodes} and {self.layout.spare_nodes} spare, {each}"
        return [*self.preflight.lines(), ("job", self.job.id), ("nodes", nodes)]

    def train(self) -> int:
        """Train until the run is finished or cannot continue here; return the exit code.

        SIGINT and SIGTERM end the ranks, which save first.
        """
        with hold_run_folder(self.config) as folder:
            run_dir = Path(folder)
            expect_no_job(run_dir)
            submission = prepare(self.config, run_dir, self.layout)
            copy_code(submission.home)
            announce(submission)
        paths = (str(submission.code), os.environ.get("PYTHONPATH"))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.environ["PYTHONSAFEPATH"] = (
            "1"  # or packages in the current folder would take precedence
        )
        print(f"run: {submission.run_dir}", flush=True)
        with showing_rank_0(submission.run_dir), interrupted_by(signal.SIGTERM, signal.SIGHUP):
            decision = run_attempts(submission.run_dir, self.job, ())
        match decision:
            case Done():
                return 0
            case Cancel():
                return STOPPED
            case GiveUp(reason) | Avoid(reason):
                print(f"the run is given up: {reason}")
                return FAILURE
            case Requeue(reason) | Restart(reason):
                print(f"stopped: {reason}; the same command resumes the run")
                return STOPPED


def layout_in(slurm: Slurm, record: Mapping[str, str], *, nodes: int, spare: int) -> JobLayout:
    """Return the ranks on each node of a job with this `record` of `scontrol show job`.

    By default there is one for each GPU that the job has on a node, and they share its CPUs.
    """
    allocated = nodes + spare
    gpus = slurm.gpu_count
    if gpus is None:
        of_node, of_job = (_gpus(record.get(f"TresPer{what}", "")) for what in ("Node", "Job"))
        gpus = of_node or of_job // allocated
    ranks = slurm.ranks_per_node or max(1, gpus)
    cpus = slurm.cpus_per_rank or max(1, int(record["NumCPUs"]) // allocated // ranks)
    return JobLayout(nodes, spare, ranks, cpus, gpus)


def _gpus(resources: str) -> int:
    return sum(int(count) for count in GPUS.findall(resources))


@contextmanager
def showing_rank_0(run_dir: Path) -> Generator[None]:
    """Print the output of rank 0 during the block."""
    log, ended = GrowingLog(run_dir / LOGS / LATEST / "rank-0.log"), Event()

    def show() -> None:
        while not ended.wait(READ_SECONDS):
            print_new([log])

    reader = Thread(target=show, name="rank-0-log", daemon=True)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()
        print_new([log])


@contextmanager
def interrupted_by(*numbers: signal.Signals) -> Generator[None]:
    """Raise `KeyboardInterrupt` in the block when one of these signals arrives."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
