"""Show what a dataset holds and what training makes of it: `data/show.py DIR [--config CONFIG]`.

It prints figures of the dataset, and draws a contact sheet: the first images that training will
see, as they are stored, as the first epochs see them and as evaluation would.
"""

import io
import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from os import W_OK, X_OK, access
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

sys.path.insert(0, str(Path(__file__).parents[1]))  # for a checkout that is not installed

from data.indexing.source import count
from data.showing.overview import overview
from data.showing.view_sheet import draw_views
from pipeline.config.load import load
from pipeline.config.schema import Config
from pipeline.dataset.index import Index, read_manifest
from pipeline.system.durable import write_whole

USER_MISTAKE = 2
INTERRUPTED = 130
DEFAULT_CONFIG = """\
name: defaults
data: {dir: .}
model: {name: resnet50}
train: {epochs: 90, global_batch: 256}
optim: {lr: 0.1}
schedule: {name: cosine}
"""
"""All that a configuration must say; the rest is the schema's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Show a dataset; return 0, or 2 after one message about a mistake of the user's."""
    arguments = _parser().parse_intermixed_args(argv)
    try:
        _show(arguments)
    except ValueError as error:
        return _refuse(str(error))
    except OSError as error:
        place = error.filename or arguments.folder
        return _refuse(f"{place}: {error.strerror or error}; mend that and try again")
    except KeyboardInterrupt:
        _say("show.py: interrupted", sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="show.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="a dataset, by prepare.py")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="as in training")
    parser.add_argument(
        "--config", type=Path, help="a recipe: how images are cut (default: as the schema says)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("contact.png"),
        metavar="PNG",
        help="the contact sheet (default: %(default)s)",
    )
    parser.add_argument(
        "--samples", type=count, default=32, metavar="N", help="images to show (default: 32)"
    )
    parser.add_argument("--seed", type=_seed, metavar="N", help="in place of the recipe's")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise ArgumentTypeError(f"{text!r} must be a whole number from 0 up")
    return int(text)


def _show(arguments: Namespace) -> None:
    folder: Path = arguments.folder
    out: Path = arguments.out
    _require_writable(out)
    config = _config(arguments)
    names = read_manifest(folder).samples
    splits = [Index.open(folder, name, config.data.root) for name in names]
    _say(overview(splits), sys.stdout)
    sheet = draw_views(splits, config, arguments.samples)
    stored = io.BytesIO()
    sheet.save(stored, "PNG")
    write_whole(out, stored.getvalue())
    _say(f"\ncontact sheet in {out}, {sheet.width} x {sheet.height} pixels", sys.stdout)


def _require_writable(out: Path) -> None:
    """Raise `ValueError` unless a file can be written to `out`."""
    folder = out.absolute().parent
    if out.is_dir() or not (folder.is_dir() and access(folder, W_OK | X_OK)):
        raise ValueError(f"--out {out} cannot be written; name a file in a folder that you may use")


def _config(arguments: Namespace) -> Config:
    """Load the recipe, or the schema's defaults, for this dataset."""
    overrides = [*arguments.overrides, f"data.dir={json.dumps(str(arguments.folder))}"]
    if arguments.seed is not None:
        overrides.append(f"seed={arguments.seed}")
    if arguments.config:
        return load(arguments.config, overrides)
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "defaults.yaml")
        path.write_text(DEFAULT_CONFIG)
        return load(path, overrides)


def _refuse(message: str) -> int:
    _say(f"show.py: {message}", sys.stderr)
    return USER_MISTAKE


def _say(text: str, stream: TextIO) -> None:
    """Print `text`, in which names of files need not be UTF-8."""
    print(text.encode(errors="backslashreplace").decode(), file=stream)


if __name__ == "__main__":
    sys.exit(main())
