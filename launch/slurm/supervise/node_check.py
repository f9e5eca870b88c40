"""Checks the nodes of a job before an attempt, all at once, so that a bad one is not used."""

import json
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from launch.slurm.records.attempt import Attempt
from launch.slurm.records.submission import Submission
from launch.slurm.supervise import node_report
from launch.slurm.supervise.srun import JobStep, check_command, rank_environment
from launch.slurm.supervise.srun_messages import not_executed, task_failures
from pipeline.config.load import load
from pipeline.config.schema import Synthetic
from pipeline.runs.folder import CONFIG_FILE
from pipeline.system.clocks import wrong_clocks

CHECK_SECONDS = 30.0
"""How long to wait for slow nodes if enough others are fine; the check itself takes a second."""
LONGEST_SECONDS = 300.0
"""How long to wait for nodes that are needed: a slow file system is not their fault."""
END_SECONDS = 3.0
POLL_SECONDS = 0.1
PROGRAM = Path(node_report.__file__).read_text(encoding="utf-8")
LABELLED = re.compile(r"\s*(\d+): (.*)")
"""A line of a task, as `srun --label` prints it."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a node found; see `node_report`."""

    faults: list[str]
    warnings: list[str]
    gpus: int
    time: float


@dataclass(slots=True)
class Answers:
    """What the nodes answered until now."""

    reports: dict[str, Report] = field(default_factory=dict[str, Report])
    doing: dict[str, str] = field(default_factory=dict[str, str])
    """What each node was last doing."""
    clocks_ahead: dict[str, float] = field(default_factory=dict[str, float])
    """How many seconds each node's clock is certainly ahead of this one's; negative is behind."""
    limit: float = LONGEST_SECONDS
    """How many seconds the nodes had."""
    is_cut_off: bool = True
    """Whether the check was ended at this limit."""

    def add(self, line: str, *, asked: float, now: float) -> None:
        """Add a line of a node, which was asked at `asked` and answered before `now`."""
        try:
            message: dict[str, Any] = json.loads(line)
            node: str = message.pop("node")
        except (ValueError, KeyError, TypeError, AttributeError):  # not a line of ours
            return
        if "doing" in message:
            self.doing[node] = message["doing"]
            return
        report = self.reports[node] = TypeAdapter(Report).validate_python(message)
        self.clocks_ahead[node] = report.time - min(max(report.time, asked), now)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which nodes cannot be used."""

    faults: dict[str, str]
    """By node: what is wrong there, in a sentence."""
    warnings: list[str]
    """Sentences about nodes that can be used."""


def check_nodes(
    submission: Submission,
    attempt: Attempt,
    names: Sequence[str],
    *,
    trained: bool,
    stops: Sequence[signal.Signals],
) -> Verdict:
    """Check the nodes `names`, in the order of tasks; slow ones delay it only if they are needed.

    `trained` is whether the run has trained before. Nodes are not checked if ranks run in a
    container: starting it may take minutes. The check is left out once `stops` has a signal.
    """
    if submission.slurm.container is not None:
        return Verdict({}, [])
    command = check_command(submission, names, PROGRAM, json.dumps(_wanted(submission)))
    environment, layout = rank_environment(submission, attempt), submission.layout
    answers, messages = ask_nodes(command, environment, names, wanted=layout.nodes, stops=stops)
    if stops:
        return Verdict({}, [])
    return judge_nodes(names, answers, messages, gpus=layout.gpus_per_node, trained=trained)


def _wanted(submission: Submission) -> dict[str, str]:
    """Return what `node_report` checks."""
    data = load(submission.run_dir / CONFIG_FILE).data
    # Without images, or with copies on the node's disk, only the dataset itself is needed.
    images = data.dir if data.stage or isinstance(data.loader, Synthetic) else data.root
    return {
        "run_dir": str(submission.run_dir),
        "config_file": CONFIG_FILE,
        "dataset": str(submission.directory / data.dir),
        "images": str(submission.directory / images) if images else "",
    }


def ask_nodes(
    command: Sequence[str],
    environment: Mapping[str, str],
    names: Sequence[str],
    *,
    wanted: int,
    stops: Sequence[signal.Signals] = (),
) -> tuple[Answers, list[str]]:
    """Run the check that srun starts on the nodes `names`; return the answers and srun's messages.

    It ends without the slow nodes once `wanted` others are fine, or `stops` has a signal.
    """
    answers, asked, began, read = Answers(), time.time(), time.monotonic(), 0
    with JobStep(command, environment) as step:
        while answers.is_cut_off and not stops and time.monotonic() - began < answers.limit:
            answers.is_cut_off = step.poll() is None
            lines = step.output[read:]
            read += len(lines)
            for line in lines:
                if match := LABELLED.fullmatch(line):
                    answers.add(match[2], asked=asked, now=time.time())
            if _all_are_known(names, answers, step.messages):  # the tasks end by themselves
                answers.limit = min(answers.limit, time.monotonic() - began + END_SECONDS)
            elif sum(not report.faults for report in answers.reports.values()) >= wanted:
                answers.limit = CHECK_SECONDS
            time.sleep(POLL_SECONDS if answers.is_cut_off else 0)
        messages = list(step.messages)  # later ones only report how the rest was ended
        step.end(END_SECONDS)
    return answers, messages


def _all_are_known(names: Sequence[str], answers: Answers, messages: Sequence[str]) -> bool:
    """Whether each node has reported, or srun has reported that its task failed."""
    failures = task_failures(messages)
    failed = {each.node if each.rank is None else names[each.rank] for each in failures}
    return answers.reports.keys() | failed >= set(names)


def judge_nodes(
    names: Sequence[str], answers: Answers, messages: Sequence[str], *, gpus: int, trained: bool
) -> Verdict:
    """Return which of the nodes `names`, in the order of tasks, cannot be used.

    A rank needs `gpus` GPUs on its node, if any node has them. A fault of all nodes is not theirs:
    it may be the user's mistake. The only node of a run is blamed if the run has `trained` before.
    No node is blamed if srun itself failed.
    """
    if not (answers.is_cut_off or answers.reports or task_failures(messages)):
        why = messages[-1] if messages else "it printed nothing"
        return Verdict({}, [f"srun could not check the nodes: {why}"])
    most_gpus = max((report.gpus for report in answers.reports.values()), default=0)
    faults: dict[str, str] = {}
    for number, name in enumerate(names):
        report = answers.reports.get(name)
        if report is None:
            faults[name] = _why_silent(name, number, answers, messages)
        elif report.faults:
            faults[name] = "; ".join(report.faults)
        elif report.gpus < gpus <= most_gpus:
            faults[name] = f"only {report.gpus} of {gpus} GPUs work"
    warnings = [
        f"{name}: {warning}"
        for name, report in answers.reports.items()
        if name not in faults
        for warning in report.warnings
    ]
    ahead = answers.clocks_ahead
    warnings += wrong_clocks({name: ahead[name] for name in names if name in ahead})
    alone = len(names) == 1 and (trained or not answers.reports)
    if len(faults) == len(names) and not alone:
        warnings += [f"{name}: {fault}" for name, fault in faults.items()]
        return Verdict({}, warnings)
    return Verdict(faults, warnings)


def _why_silent(name: str, task: int, answers: Answers, messages: Sequence[str]) -> str:
    """Return why a node did not report."""
    labelled = filter(None, map(LABELLED.fullmatch, messages))
    said = [match[2] for match in labelled if int(match[1]) == task]
    failures = [each for each in task_failures(messages) if each.node == name or each.rank == task]
    doing = answers.doing.get(name, "")
    if failures:
        why = not_executed("\n".join(said)) or (said[-1] if said else failures[0].why)
        return f"Python does not start there: {why}"
    if doing:
        return f"it hangs while checking {doing}"
    return f"Python did not start there within {answers.limit:.0f} s"
