"""Which ranks, nodes and links are much slower than the others, in plain sentences."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from pipeline.distributed.health.records import Link, RankHealth

SLOW_GPU = 0.8
"""Share of the median: GPUs of one model differ by 8 % on average and at most 22 %, broken ones by
far more (Sinha et al., Not All GPUs Are Created Equal, arXiv:2208.11035)."""
SLOW_LINK = 0.6
"""Share of the median, for copies to and between GPUs: a link that lost half of its lanes (0.5) is
reported; one that merely crosses another socket or switch should not be."""
SLOW_CPU = 0.5
"""Share of the median, for CPUs: they share cores and memory with other programs."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value of a rank, and the words that report it."""

    rank: RankHealth
    verb: str
    value: float
    unit: str
    limit: float
    """Share of the median below which the value counts as slow."""


def slow_ranks(healths: Sequence[RankHealth]) -> list[str]:
    """Return one sentence for each rank, node or link that is much slower than the median.

    Links are compared with links of the same route: within a node, or between nodes.
    """
    columns = [[_matmul(health) for health in healths]]
    columns.append([figure for health in healths for figure in _copy(health)])
    sentences = [sentence for column in columns for sentence in _slow_figures(column)]
    return sentences + list(_slow_links(healths))


def describe_health(healths: Sequence[RankHealth]) -> str:
    """Return the figures of all ranks in one line: median and minimum of each."""
    parts = [_spread("matmul", [health.matmul_teraflops for health in healths], "TFLOP/s")]
    copies = [figure.value for health in healths for figure in _copy(health)]
    reductions = [health.all_reduce_gigabytes_per_second for health in healths]
    parts.append(_spread("host to GPU", copies, "GB/s"))
    parts.append(_spread("all-reduce", [value for value in reductions if value], "GB/s"))
    for route, links in _by_route(healths).items():
        speeds = [link.gigabytes_per_second for link in links]
        parts.append(_spread(f"links {route}", speeds, "GB/s"))
    return "; ".join(part for part in parts if part)


def _spread(what: str, values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    return f"{what} {_number(median(values))} {unit} (min {_number(min(values))})"


def _matmul(health: RankHealth) -> Figure:
    limit = SLOW_GPU if health.device == "GPU" else SLOW_CPU
    return Figure(health, "multiplies", health.matmul_teraflops, "TFLOP/s", limit)


def _copy(health: RankHealth) -> list[Figure]:
    speed = health.host_to_device_gigabytes_per_second
    if speed is None:
        return []
    return [Figure(health, "copies from host to GPU", speed, "GB/s", SLOW_LINK)]


def _slow_figures(column: Sequence[Figure]) -> Iterator[str]:
    """Yield a sentence for each slow rank, or a single one if all ranks of a node are slow."""
    if not column:
        return
    middle = median(figure.value for figure in column)
    by_host: dict[str, list[Figure]] = defaultdict(list)
    for figure in column:
        by_host[figure.rank.host].append(figure)
    for host, figures in by_host.items():
        slow = [figure for figure in figures if figure.value < figure.limit * middle]
        if len(slow) == len(figures) > 1:
            value, one = median(figure.value for figure in slow), slow[0]
            yield (
                f"all {len(slow)} ranks of {host}: each {one.verb} at"
                f" {_compared(value, middle, one.unit)}"
            )
        else:
            for one in slow:
                yield f"{_name(one.rank)} {one.verb} at {_compared(one.value, middle, one.unit)}"


def _slow_links(healths: Sequence[RankHealth]) -> Iterator[str]:
    ranks = {health.rank: health for health in healths}
    limit = SLOW_LINK if all(health.device == "GPU" for health in healths) else SLOW_CPU
    for route, links in _by_route(healths).items():
        middle = median(link.gigabytes_per_second for link in links)
        for link in links:
            if link.gigabytes_per_second < limit * middle:
                yield (
                    f"the link from {_name(ranks[link.source])} to {_name(ranks[link.target])}"
                    f" carries {_compared(link.gigabytes_per_second, middle, 'GB/s')} of links"
                    f" {route}"
                )


def _by_route(healths: Sequence[RankHealth]) -> dict[str, list[Link]]:
    links = [link for health in healths for link in health.links]
    by_route: dict[str, list[Link]] = defaultdict(list)
    for link in sorted(links, key=lambda link: link.source):
        by_route[link.route].append(link)
    return by_route


def _name(health: RankHealth) -> str:
    part = f"GPU {health.local_rank} of " if health.device == "GPU" else "on "
    return f"rank {health.rank} ({part}{health.host})"


def _compared(value: float, middle: float, unit: str) -> str:
    share = f"{100 * value / middle:.0f} % of the median"
    return f"{share} ({_number(value)} of {_number(middle)} {unit})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
