"""Check that the images of a dataset still match its index: `data/verify.py DIR`.

Every image is read, in the order on disk, and compared with its digest in the index. With --decode
every image is also decoded as a whole, by the decoder of training.
"""

import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from os import sched_getaffinity
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the project need not be installed

from data.checking.exclusion import require_place, write_without
from data.checking.flaws import FINDINGS
from data.checking.report import VerifyReport
from data.checking.verification import verify_split
from data.indexing.paths import require_file
from pipeline.dataset.index import Index, read_manifest
from pipeline.system.command import Parser, count, run_command
from pipeline.system.durable import write_whole
from pipeline.system.exit_codes import FAILURE
from pipeline.system.progress import byte_progress

EXIT_CODES = "exit codes: 0 sound, 1 faults found, 2 a mistake in the command, 130 Ctrl-C"


def main(argv: Sequence[str] | None = None) -> int:
    """Verify a dataset; return 0 if it is sound, 1 if not, 2 after a user's mistake."""
    arguments = _parser().parse_args(argv)
    return run_command(
        lambda: _verify(arguments),
        name="verify.py",
        interrupted="interrupted; nothing was written",
        again="verify again",
    )


def _parser() -> ArgumentParser:
    parser = Parser(
        prog="verify.py", description=(__doc__ or "").partition("\n")[0], epilog=EXIT_CODES
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a dataset made by prepare.py")
    parser.add_argument("--decode", action="store_true", help="also decode every image")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write all findings as JSON")
    parser.add_argument(
        "--exclude", type=Path, metavar="OUT", help="write a dataset without the faulty images"
    )
    parser.add_argument(
        "--replace", action="store_true", help="let --exclude replace another dataset in OUT"
    )
    parser.add_argument(
        "--exclude-also",
        type=_findings,
        default=frozenset(),
        metavar="KINDS",
        help=f"with --exclude, also leave out images with these findings: {', '.join(FINDINGS)} "
        "(separated by commas)",
    )
    parser.add_argument(
        "--workers",
        type=count,
        default=len(sched_getaffinity(0)),
        metavar="N",
        help="threads that read and decode (default: the cores of this machine, %(default)s)",
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="where the images are, if they were moved"
    )
    return parser


def _findings(text: str) -> frozenset[str]:
    kinds = frozenset(filter(None, text.split(",")))
    unknown = sorted(kinds - set(FINDINGS))
    if unknown or not kinds:
        raise ArgumentTypeError(
            f"{text!r} must be one or more of {', '.join(FINDINGS)}, separated by commas"
        )
    return kinds


def _verify(arguments: Namespace) -> int:
    _check(arguments)
    folder: Path = arguments.folder
    manifest = read_manifest(folder)
    splits = [Index.open(folder, split, arguments.root) for split in manifest.samples]
    total = sum(int(index.sizes.sum()) for index in splits)
    started, began = datetime.now(UTC), time.monotonic()
    with byte_progress("verifying", total=total) as advance:
        verdicts = [
            verify_split(index, decode=arguments.decode, workers=arguments.workers, advance=advance)
            for index in splits
        ]
    seconds = time.monotonic() - began
    report = VerifyReport(folder, manifest, verdicts, arguments.decode, started, seconds)
    print(report.to_text())
    if arguments.report:
        write_whole(arguments.report, report.to_json())
    if arguments.exclude:
        _exclude(arguments, report)
    return 0 if report.is_sound else FAILURE


def _exclude(arguments: Namespace, report: VerifyReport) -> None:
    made_from = {"dataset": str(report.folder.absolute()), "decoded": report.decoded}
    out: Path = arguments.exclude
    also: frozenset[str] = arguments.exclude_also
    made = write_without(
        out, report.verdicts, also=also, made_from=made_from, replace=arguments.replace
    )
    left_out = {split: report.manifest.samples[split] - n for split, n in made.samples.items()}
    counts = ", ".join(f"{n:,} from {split}" for split, n in left_out.items())
    print(f"{out}: dataset written, images left out: {counts}; fingerprint {made.fingerprint}")


def _check(arguments: Namespace) -> None:
    """Raises `ValueError` for options that would only fail after hours of reading."""
    if arguments.exclude:
        require_place(arguments.exclude, arguments.folder, replace=arguments.replace)
    if arguments.replace and not arguments.exclude:
        raise ValueError("--replace needs --exclude OUT")
    if arguments.exclude_also and not (arguments.exclude and arguments.decode):
        raise ValueError("--exclude-also needs --exclude OUT, and --decode to find such images")
    if arguments.report:
        require_file("--report", arguments.report)


if __name__ == "__main__":
    sys.exit(main())
