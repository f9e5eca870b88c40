"""Show the content of a dataset, and what training sees of it: `data/show.py DIR`.

It prints figures of the dataset and draws a contact sheet: the first training images as stored, as
the first epochs see them, and as evaluation would see them.
"""

import io
import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))  # the project need not be installed

from data.indexing.paths import require_file
from data.showing.overview import overview
from data.showing.view_sheet import draw_views
from pipeline.config.foreign import option_hint
from pipeline.config.load import load
from pipeline.config.schema import Config
from pipeline.dataset.index import Index, read_manifest
from pipeline.system.command import Parser, count, note, run_command
from pipeline.system.durable import write_whole

DEFAULT_CONFIG = """\
name: defaults
data: {dir: .}
model: {name: resnet50}
train: {epochs: 90, global_batch: 256}
optim: {lr: 0.1}
schedule: {name: cosine}
"""
"""The fields that a configuration must have; the schema has defaults for the others."""


def main(argv: Sequence[str] | None = None) -> int:
    """Show a dataset; return 0, or 2 after one message about a user's mistake."""
    arguments = _parser().parse_intermixed_args(argv)
    return run_command(lambda: _show(arguments), name="show.py", interrupted="interrupted")


def _parser() -> ArgumentParser:
    parser = Parser(
        prog="show.py", description=(__doc__ or "").partition("\n")[0], hint=option_hint
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a dataset made by prepare.py")
    parser.add_argument(
        "overrides", nargs="*", metavar="a.b=c", help="changes to the recipe, as in training"
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="the recipe whose crops are shown (default: the defaults of the schema)",
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
    parser.add_argument(
        "--seed", type=_seed, metavar="N", help="the seed (default: that of the recipe)"
    )
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise ArgumentTypeError(f"{text!r} must be a whole number, at least 0 and below 2**63")
    return int(text)


def _show(arguments: Namespace) -> int:
    folder: Path = arguments.folder
    out: Path = arguments.out
    require_file("--out", out)
    config = _config(arguments)
    names = read_manifest(folder).samples
    splits = [Index.open(folder, name, config.data.root) for name in names]
    print(overview(splits))
    sheet = draw_views(splits, config, arguments.samples)
    stored = io.BytesIO()
    sheet.save(stored, "PNG")
    write_whole(out, stored.getvalue())
    print(f"\ncontact sheet in {out}, {sheet.width} x {sheet.height} pixels")
    return 0


def _config(arguments: Namespace) -> Config:
    """Load the recipe, or the defaults of the schema, for this dataset."""
    overrides = [*arguments.overrides, f"data.dir={json.dumps(str(arguments.folder))}"]
    if arguments.seed is not None:
        overrides.append(f"seed={arguments.seed}")
    if arguments.config:
        return load(arguments.config, overrides, note)
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "defaults.yaml")
        path.write_text(DEFAULT_CONFIG)
        return load(path, overrides)


if __name__ == "__main__":
    sys.exit(main())
