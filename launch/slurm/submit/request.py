"""What a person wants trained on a cluster: checked in all that can be known before it queues."""

from dataclasses import dataclass
from pathlib import Path

from launch.diagnosis.facts import look_at_store
from launch.local.preflight import Preflight, check
from launch.slurm.api.jobs import expect_no_job
from launch.slurm.records.submission import Layout, Submission
from launch.slurm.submit.capacity import check_request, expect_shared, plan_layout, read_partitions
from launch.slurm.submit.sbatch import prepare, queue, script
from pipeline.config.schema import Config
from pipeline.runs.find import runs_dir_of
from pipeline.runs.folder import hold_run_folder
from pipeline.tracking.store_uri import default_uri, without_password


@dataclass(frozen=True)
class JobRequest:
    """A configuration that fits a cluster."""

    config: Config
    layout: Layout
    partition: str
    preflight: Preflight
    warnings: list[str]

    @classmethod
    def check(cls, config: Config, *, nodes: int, like: "JobRequest | None" = None) -> "JobRequest":
        """Return the request for `nodes` nodes; raise `ValueError` with the first that is wrong.

        What `like` shares with it, and has checked a moment ago, is not looked at again.
        """
        if config.run_dir:
            expect_no_job(config.run_dir)
        wanted = (nodes, *_place(config))
        if like is not None and (like.layout.nodes, *_place(like.config)) == wanted:
            known = check(config, ranks=like.layout.world_size, like=like.preflight)
            return cls(config, like.layout, like.partition, known, like.warnings)
        partition, warnings = check_request(config.slurm, read_partitions(), nodes=nodes)
        layout = plan_layout(config.slurm, partition, nodes=nodes)
        expect_shared(config.run_dir or config.runs_dir, config.slurm, partition)
        preflight = check(config, ranks=layout.world_size, like=like.preflight if like else None)
        if config.tracking.mlflow:
            uri = default_uri(config.runs_dir, config.tracking.uri)
            warnings = [*warnings, *tracking_warnings(uri)]
        return cls(config, layout, partition.name, preflight, warnings)

    def lines(self) -> list[tuple[str, str]]:
        """Return what a person wants to see before queueing, as (name, value)."""
        layout = self.layout
        spare = f" and {layout.spare_nodes} spare" if layout.spare_nodes else ""
        gpus = f", {layout.gpus_per_node} GPUs" if layout.gpus_per_node else ""
        each = f"{layout.ranks_per_node} ranks{gpus}, {layout.cpus_per_rank} CPUs a rank"
        return [
            *self.preflight.lines(),
            ("partition", self.partition),
            ("nodes", f"{layout.nodes}{spare}, each {each}"),
            ("time limit", self.config.slurm.time_limit or "the partition's"),
        ]

    def script(self) -> str:
        """Return the batch script that would be submitted; changes nothing."""
        run_dir = self.config.run_dir or self.config.runs_dir / f"{self.config.name}-NEW"
        return script(prepare(self.config, run_dir, self.layout), self.config.name)

    def queue(self) -> Submission:
        """Make the run's folder, or find that of an unfinished one, and queue the run."""
        with hold_run_folder(self.config) as run_dir:
            return queue(self.config, Path(run_dir), self.layout)


def _place(config: Config) -> tuple[object, ...]:
    """Return all by which one configuration may fit the cluster, and another not."""
    folder = config.run_dir.parent if config.run_dir else config.runs_dir
    return folder, config.slurm, config.tracking


def tracking_warnings(uri: str) -> list[str]:
    """Return a warning if the tracking server at `uri` does not answer."""
    store = look_at_store(uri)
    if not store.error:
        return []
    return [
        f"the tracking server {store.uri} does not answer ({store.error}); the run trains without"
        " it, keeps everything in metrics.jsonl, and sends it once the server is back"
    ]


def describe_submission(submission: Submission, config: Config) -> str:
    """Return what a person wants to know once a run is queued."""
    run_dir, logs = submission.run_dir, submission.run_dir / "logs"
    lines = [
        ("job", submission.job_id),
        ("run", str(run_dir)),
        ("logs", f"{logs}/latest/rank-0.log, and {logs}/job-{submission.job_id}.log"),
        ("dashboard", dashboard(config.tracking.uri, runs_dir_of(run_dir))),
        ("watch", f"python launch/status.py {run_dir}"),
        ("stop", f"python launch/cancel.py {run_dir}"),
        ("go on", f"python launch/resume.py {run_dir}"),
    ]
    return "\n".join(f"{name + ':':11}{value}" for name, value in lines)


def dashboard(uri: str | None, runs_dir: Path) -> str:
    """Return the link to the tracking server, or the command that starts one."""
    store = default_uri(runs_dir, uri)
    if store.startswith(("http://", "https://")):
        return without_password(store)
    return f"python launch/dashboard.py --runs-dir {runs_dir}"
