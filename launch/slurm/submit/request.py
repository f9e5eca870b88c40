"""A run to be queued, checked as far as possible first."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from launch.local.preflight import Preflight, check
from launch.slurm.api.partitions import read_partitions
from launch.slurm.records.submission import (
    JobLayout,
    Submission,
    expect_no_job,
    last_submission,
    other_cluster,
)
from launch.slurm.submit.capacity import check_request, expect_shared, plan_layout
from launch.slurm.submit.sbatch import prepare, queue, script
from launch.slurm.submit.shell_options import fill_from_shell
from pipeline.config.schema import Config
from pipeline.runs.find import runs_dir_of
from pipeline.runs.folder import hold_run_folder, own_runs
from pipeline.system.command import command_line, plural
from pipeline.tracking.server import why_silent
from pipeline.tracking.store_uri import default_uri, is_server, public_uri, without_password


@dataclass(frozen=True)
class JobRequest:
    """A configuration that fits the cluster."""

    config: Config
    layout: JobLayout
    partition: str
    preflight: Preflight
    warnings: list[str]

    @classmethod
    def check(cls, config: Config, *, nodes: int, like: "JobRequest | None" = None) -> "JobRequest":
        """Return the request for `nodes` nodes; what `like` has already checked is not repeated.

        Options that the configuration leaves open come from SBATCH_* variables. Raises `ValueError`
        for the first mistake, and if a job has the run.
        """
        slurm, notes = fill_from_shell(config.slurm, os.environ)
        config = replace(config, slurm=slurm)
        for run_dir in own_runs(config):
            expect_no_job(run_dir)
            notes += _lost_sight(run_dir)
        wanted = (nodes, *_cluster_settings(config))
        if like is not None and (like.layout.nodes, *_cluster_settings(like.config)) == wanted:
            known = check(config, ranks=like.layout.world_size, like=like.preflight)
            return cls(config, like.layout, like.partition, known, [*like.warnings, *notes])
        partition, warnings = check_request(config.slurm, read_partitions(), nodes=nodes)
        layout = plan_layout(config.slurm, partition, nodes=nodes)
        expect_shared(config.run_dir or config.runs_dir, config.slurm, partition)
        preflight = check(config, ranks=layout.world_size, like=like.preflight if like else None)
        if config.tracking.mlflow:
            uri = default_uri(config.runs_dir, config.tracking.uri)
            warnings = [*warnings, *tracking_warnings(uri)]
        return cls(config, layout, partition.name, preflight, [*notes, *warnings])

    def lines(self) -> list[tuple[str, str]]:
        """Return the summary to print before queueing, as (name, value)."""
        layout = self.layout
        spare = f" and {layout.spare_nodes} spare" if layout.spare_nodes else ""
        gpus = f", {plural(layout.gpus_per_node, 'GPU')}" if layout.gpus_per_node else ""
        cpus = f"{plural(layout.cpus_per_rank, 'CPU')} per rank"
        each = f"{plural(layout.ranks_per_node, 'rank')}{gpus}, {cpus}"
        return [
            *self.preflight.lines(),
            ("partition", self.partition),
            ("nodes", f"{layout.nodes}{spare}, each with {each}"),
            ("time limit", self.config.slurm.time_limit or "the partition's"),
        ]

    def script(self) -> str:
        """Return the batch script that would be submitted; writes nothing."""
        run_dir = self.config.run_dir or self.config.runs_dir / f"{self.config.title}-NEW"
        return script(prepare(self.config, run_dir, self.layout), self.config.title)

    def queue(self) -> Submission:
        """Make the run folder, or find the unfinished run's, and queue the run."""
        with hold_run_folder(self.config) as run_dir:
            return queue(self.config, Path(run_dir), self.layout)


def _lost_sight(run_dir: Path) -> list[str]:
    """Return a warning if the run's last job is on a cluster that cannot be asked from here."""
    submission = last_submission(run_dir)
    cluster = other_cluster(submission) if submission else ""
    if submission is None or not cluster:
        return []
    return [
        f"the last job of {run_dir}, {submission.job_id}, was queued on cluster {cluster}, which"
        " cannot be asked from here; if it still waits or runs there, cancel it first"
    ]


def doubts_of(request: JobRequest) -> list[str]:
    """Return what to warn of before a run is queued."""
    gpus = request.layout.gpus_per_node
    return [*request.warnings, *request.preflight.warnings(gpus=gpus, elsewhere=True)]


def _cluster_settings(config: Config) -> tuple[object, ...]:
    """Return the settings that decide whether a configuration fits the cluster."""
    folder = config.run_dir.parent if config.run_dir else config.runs_dir
    return folder, config.slurm, config.tracking


def tracking_warnings(uri: str) -> list[str]:
    """Return a warning if the tracking server at `uri` does not answer."""
    error = why_silent(uri)
    if not error:
        return []
    return [
        f"the tracking server {without_password(uri)} does not answer ({error}); the run trains"
        " without it, records everything in metrics.jsonl, and sends it once the server is back"
    ]


def describe_submission(submission: Submission, config: Config) -> str:
    """Return what to print once a run is queued."""
    run_dir, logs = submission.run_dir, submission.run_dir / "logs"
    lines = [
        ("job", submission.job_id),
        ("run", str(run_dir)),
        ("logs", f"{logs}/latest/rank-0.log and {logs}/job-{submission.job_id}.log"),
        ("dashboard", dashboard(config.tracking.uri, runs_dir_of(run_dir))),
        ("status", command_line("launch/status.py", run_dir)),
        ("cancel", command_line("launch/cancel.py", run_dir)),
        ("resume", command_line("launch/resume.py", run_dir)),
    ]
    return "\n".join(f"{name + ':':11}{value}" for name, value in lines)


def dashboard(uri: str | None, runs_dir: Path) -> str:
    """Return the link to the tracking server, or the command that starts one."""
    store = default_uri(runs_dir, uri)
    if is_server(store):
        return public_uri(store)
    return command_line("launch/dashboard.py", "--runs-dir", runs_dir)
