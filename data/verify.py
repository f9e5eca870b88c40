"""Check that the images of a dataset are still those that were indexed: `data/verify.py DIR`.

Every image is read, in the order in which they lie on disk, and its digest compared with the
index; with --decode, every image is also decoded, whole, as training does it.
"""

import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from os import W_OK, X_OK, access, sched_getaffinity
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).parents[1]))  # for a checkout that is not installed

from data.checking.exclusion import require_place, write_without
from data.checking.flaws import FINDINGS
from data.checking.verification import verify_split
from data.checking.verify_report import Report
from data.indexing.progress import byte_progress
from data.indexing.source import count
from pipeline.dataset.index import Index, read_manifest
from pipeline.system.durable import write_whole

FAULTY = 1
USER_MISTAKE = 2
INTERRUPTED = 130
EXIT_CODES = "exit codes: 0 sound, 1 faults were found, 2 a mistake of the user's, 130 Ctrl-C"


def main(argv: Sequence[str] | None = None) -> int:
    """Verify a dataset; return 0 if it is sound, 1 if not, 2 after a mistake of the user's."""
    arguments = _parser().parse_args(argv)
    try:
        return _verify(arguments)
    except ValueError as error:
        return _refuse(str(error))
    except OSError as error:
        place = error.filename or arguments.folder
        return _refuse(f"{place}: {error.strerror or error}; mend that and verify again")
    except KeyboardInterrupt:
        _say("verify.py: interrupted; nothing is written", sys.stderr)
        return INTERRUPTED


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="verify.py", description=(__doc__ or "").partition("\n")[0], epilog=EXIT_CODES
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a dataset, by prepare.py")
    parser.add_argument("--decode", action="store_true", help="decode every image, too")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write all findings as JSON")
    parser.add_argument(
        "--exclude", type=Path, metavar="OUT", help="write a dataset without the faulty images"
    )
    parser.add_argument(
        "--exclude-also",
        type=_findings,
        default=frozenset(),
        metavar="KINDS",
        help=f"and without images that are {', '.join(FINDINGS)} (a list with commas)",
    )
    parser.add_argument(
        "--workers",
        type=count,
        default=len(sched_getaffinity(0)),
        metavar="N",
        help="threads that read and decode (default: the cores of this machine, %(default)s)",
    )
    parser.add_argument(
        "--root", type=Path, help="where the images lie, if they moved since they were indexed"
    )
    return parser


def _findings(text: str) -> frozenset[str]:
    kinds = frozenset(filter(None, text.split(",")))
    unknown = sorted(kinds - set(FINDINGS))
    if unknown or not kinds:
        raise ArgumentTypeError(f"{text!r} must name some of {', '.join(FINDINGS)}, with commas")
    return kinds


def _verify(arguments: Namespace) -> int:
    _require_sense(arguments)
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
    report = Report(folder, manifest, verdicts, arguments.decode, started, seconds)
    _say(report.to_text(), sys.stdout)
    if arguments.report:
        write_whole(arguments.report, report.to_json())
    if arguments.exclude:
        _exclude(arguments, report)
    return 0 if report.is_sound else FAULTY


def _exclude(arguments: Namespace, report: Report) -> None:
    made_from = {"dataset": str(report.folder.absolute()), "decoded": report.decoded}
    out: Path = arguments.exclude
    also: frozenset[str] = arguments.exclude_also
    made = write_without(out, report.verdicts, also=also, made_from=made_from)
    left = {split: report.manifest.samples[split] - n for split, n in made.samples.items()}
    counts = ", ".join(f"{n:,} of {split}" for split, n in left.items())
    _say(f"{out}: the dataset without {counts}; fingerprint {made.fingerprint}", sys.stdout)


def _require_sense(arguments: Namespace) -> None:
    """Raise `ValueError` for what would be of no use after hours of reading."""
    if arguments.exclude:
        require_place(arguments.exclude, arguments.folder)
    if arguments.exclude_also and not (arguments.exclude and arguments.decode):
        raise ValueError("--exclude-also needs --exclude OUT, and --decode to find such images")
    report: Path | None = arguments.report
    if report:
        folder = report.absolute().parent
        if report.is_dir() or not (folder.is_dir() and access(folder, W_OK | X_OK)):
            raise ValueError(f"--report {report} cannot be written; name a file in a folder")


def _refuse(message: str) -> int:
    _say(f"verify.py: {message}", sys.stderr)
    return USER_MISTAKE


def _say(text: str, stream: TextIO) -> None:
    """Print `text`, in which names of files need not be UTF-8."""
    print(text.encode(errors="backslashreplace").decode(), file=stream)


if __name__ == "__main__":
    sys.exit(main())
