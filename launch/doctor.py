"""Report problems that will cost work or time: `python launch/doctor.py [CONFIG] [a.b=c]`.

It checks the cluster's settings and partitions, the folders and the tracking server; with CONFIG,
also whether its job could start. Without SLURM it checks this machine. It changes nothing.
"""

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # works without installation

from launch.diagnosis import cluster_rules, facts, machine_rules, place_rules
from launch.diagnosis.finding import Finding, Severity, apply, costs_time, costs_work, fine
from launch.slurm.api.cli import SlurmError, show_config
from launch.slurm.api.partitions import read_partitions
from launch.slurm.submit.capacity import check_request, choose_partitions
from launch.slurm.submit.shell_options import fill_from_shell
from pipeline.config.foreign import option_hint
from pipeline.config.load import load
from pipeline.config.schema import Config, Slurm
from pipeline.system.command import Parser, count, note, plural, run_command
from pipeline.system.exit_codes import USER_MISTAKE
from pipeline.tracking.store_uri import default_uri

EXIT_CODES = "exit codes: 0 no finding costs work, 1 at least one does, 2 user's mistake"
WIDTH = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code: 0, 1 a finding costs work, 2 a mistake."""
    options = _parser().parse_intermixed_args(arguments)
    return run_command(lambda: report(options))


def report(options: argparse.Namespace) -> int:
    """Print the findings; return the exit code."""
    config = load(options.config, options.overrides, note) if options.config else None
    findings, refusals = examine(config, nodes=options.nodes)
    print(to_json(findings) if options.json else to_text(findings))
    if refusals:
        print(*refusals, sep="\n", file=sys.stderr)
        return USER_MISTAKE
    return int(any(finding.severity == Severity.WORK for finding in findings))


def examine(config: Config | None, *, nodes: int) -> tuple[list[Finding], list[str]]:
    """Return the findings, and why the cluster would refuse the run of `config`, or None."""
    refusals: list[str] = []
    if shutil.which("scontrol") is None:
        text = "scontrol is not on PATH; the rest is about training on this machine"
        findings, is_alone = [fine("SLURM", "not installed", text)], True
    else:
        try:
            findings, refusals, is_alone = _examine_cluster(config, nodes)
        except SlurmError as error:
            remedy = "check that slurmctld runs and SLURM_CONF is right, or train with --local"
            last = str(error).splitlines()[-1]
            findings, is_alone = [costs_work("SLURM", "no answer", last, remedy)], True
    if is_alone:
        findings += apply(machine_rules.RULES, facts.inspect_machine())
    return findings + _examine_places(config, is_alone=is_alone), refusals


def to_text(findings: Sequence[Finding]) -> str:
    """Return the findings as text, the costliest first."""
    lines: list[str] = []
    for severity in Severity:
        chosen = [finding for finding in findings if finding.severity == severity]
        if chosen:
            lines += [severity.upper(), *(line for each in chosen for line in _lines(each)), ""]
    counts = Counter(finding.severity for finding in findings)
    return "\n".join([*lines, ", ".join(f"{each}: {counts[each]}" for each in Severity)])


def to_json(findings: Sequence[Finding]) -> str:
    """Return the findings as JSON."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _examine_cluster(config: Config | None, nodes: int) -> tuple[list[Finding], list[str], bool]:
    """Return the findings, why the request is refused, and whether all nodes are this host."""
    partitions = read_partitions()
    chosen, findings, refusals = tuple(partitions.values()), list[Finding](), list[str]()
    if config:
        slurm, notes = fill_from_shell(config.slurm, os.environ)
        findings += [fine("shell", "SBATCH_*", note) for note in notes]
        try:
            chosen = tuple(choose_partitions(slurm, partitions))
            partition, warnings = check_request(slurm, partitions, nodes=nodes)
        except ValueError as error:
            refusals.append(str(error))
            named = partitions.get(slurm.partition or "")
            chosen = (named,) if named else chosen
        else:
            value = f"{plural(nodes, 'node')} of {partition.name}"
            remedy = "see sinfo, and the section slurm of the configuration"
            findings += [costs_time("request", value, text, remedy) for text in warnings]
    cluster = cluster_rules.Cluster(
        settings=show_config(),
        partitions=tuple(partitions.values()),
        chosen=chosen,
        stage=config.data.stage if config else None,
        locked_memory_bytes=facts.locked_memory_bytes(),
    )
    is_alone = all(partition.is_this_host for partition in chosen)
    return findings + apply(cluster_rules.RULES, cluster), refusals, is_alone


def _examine_places(config: Config | None, *, is_alone: bool) -> list[Finding]:
    """Return the findings about folders, the tracking server and the container."""
    runs_dir = (config.run_dir or config.runs_dir) if config else Path("runs")
    slurm = config.slurm if config else Slurm()
    all_see = "anything" if is_alone else "shared"
    must_be = "anything" if slurm.run_dir_is_shared else all_see
    folders = [facts.inspect_folder("runs_dir", runs_dir, must_be, is_written=True)]
    if config:
        data = config.data
        folders.append(facts.inspect_folder("data.dir", data.dir, all_see, is_written=False))
        if data.stage:
            # A login node need not write there: only the kind of file system is checked.
            stage = facts.inspect_folder("data.stage", data.stage, "local", is_written=is_alone)
            folders.append(stage)
    findings = [found for folder in folders for found in apply(place_rules.RULES, folder)]
    if config is None or config.tracking.mlflow:
        uri = default_uri(config.runs_dir, config.tracking.uri) if config else default_uri(runs_dir)
        findings.append(place_rules.tracking(facts.inspect_store(uri)))
    if slurm.container:
        is_there = facts.has_runtime(slurm.container)
        findings.append(place_rules.container(slurm.container.runtime, is_there=is_there))
    return findings


def _lines(finding: Finding) -> list[str]:
    """Return the lines of one finding, with its remedy on separate lines."""
    start = f"  {finding.setting} = {finding.value}: "
    lines = textwrap.wrap(start + finding.meaning, WIDTH, subsequent_indent="    ")
    if finding.remedy:
        remedy = f"    -> {finding.remedy}"
        lines += textwrap.wrap(remedy, WIDTH, subsequent_indent="       ")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python launch/doctor.py",
        hint=option_hint,
        description="Report problems that will cost work or time.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("config", type=Path, nargs="?", help="the run to check for")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings to override")
    parser.add_argument("--nodes", type=count, default=1, metavar="N", help="machines (default 1)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
