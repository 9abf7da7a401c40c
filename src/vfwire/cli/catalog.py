"""`vfwire catalog`: which EC2 instance types have enhanced networking, and by which mechanism."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from vfwire.checks.ec2 import catalog as data
from vfwire.checks.ec2.catalog import Catalog, InstanceType
from vfwire.checks.ec2.mechanism import Differences, Mechanism, differences, label, seed_mechanism
from vfwire.cli.answers import answers
from vfwire.cli.aws_options import aws_options
from vfwire.errors import UsageError

PPS = "not published by AWS"
DEFAULT_PATH = (
    "5 Gbps: as the default path was published; "
    "today AWS documents the same figure as the limit of a single flow outside of a cluster placement group"
)
DERIVED = "derived from the published list of families: DescribeInstanceTypes does not tell"
_MECHANISMS = click.Choice([mechanism.value for mechanism in Mechanism])


@click.command()
@click.argument("types", nargs=-1, metavar="[TYPE]...")
@click.option("--family", help="Only this family, as in c5.")
@click.option("--mechanism", type=_MECHANISMS, help="Only this mechanism.")
@click.option(
    "--as-of",
    type=click.Choice(["current", "seed"]),
    default="current",
    show_default=True,
    help="The present, or the lists as first published.",
)
@click.option("--refresh", is_flag=True, help="Ask AWS first, and keep what it says for the next time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@aws_options
@answers
def catalog(types: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Which instance types have enhanced networking. With TYPEs, exits 1 if one of them has none."""
    if options["refresh"]:
        _refresh(options["profile"], options["region"], options["endpoint_url"])
    held = data.load()
    chosen = _choose(held, types, options["family"])
    seed = options["as_of"] == "seed"
    found = [(one, seed_mechanism(label(one.name)) if seed else one.mechanism) for one in chosen]
    if options["mechanism"] or (seed and not types):
        wanted = {options["mechanism"]} if options["mechanism"] else {Mechanism.ENA, Mechanism.VF82599}
        found = [(one, mechanism) for one, mechanism in found if mechanism in wanted]
    since = differences((one.name, one.mechanism) for one in held.types.values())
    if as_json:
        click.echo(json.dumps(_object(found, held, since, options["as_of"])))
    elif types:
        click.echo("\n\n".join(_described(one, mechanism) for one, mechanism in found))
    else:
        _print_table(found)
        _print_foot(held, since)
    return int(bool(types) and any(mechanism == Mechanism.NONE for _, mechanism in found))


def _refresh(profile: str | None, region: str | None, endpoint_url: str | None) -> None:
    from vfwire.checks.ec2.aws import Aws
    from vfwire.checks.ec2.live import refresh
    from vfwire.cli.progress import Steps

    with Steps() as steps:
        aws = Aws(profile, region, endpoint_url)
        steps.step(f"asking AWS for the instance types of {aws.region}")
        path = refresh(aws, lambda count: steps.note(f"{count} instance types"))
        steps.note(f"kept in {path}")


def _choose(held: Catalog, names: Sequence[str], family: str | None) -> list[InstanceType]:
    for name in names:
        if name not in held.types:
            near = ", ".join(held.nearest(name))
            raise UsageError(
                f"no instance type {name!r} in the catalog",
                f"nearest: {near}" if near else "vfwire catalog --refresh asks AWS",
            )
    chosen = [held.types[name] for name in names] if names else list(held.types.values())
    if family is None:
        return chosen
    families = {one.family for one in held.types.values()}
    if family not in families:
        import difflib

        near = ", ".join(difflib.get_close_matches(family, families, n=3, cutoff=0.3))
        raise UsageError(f"no family {family!r} in the catalog", f"nearest: {near}")
    return [one for one in chosen if one.family == family]


def _object(
    found: Sequence[tuple[InstanceType, Mechanism]], held: Catalog, since: Differences, as_of: str
) -> dict[str, Any]:
    return {
        "schema": 1,
        "as_of": as_of,
        "sources": list(held.sources),
        "packets_per_second": None,
        "packets_per_second_note": PPS,
        "default_path_gbps": 5,
        "default_path_note": DEFAULT_PATH,
        "types": [
            {
                **asdict(one),
                "mechanism": mechanism,
                "mechanism_derived": mechanism == Mechanism.VF82599,
                "seed_mechanism": seed_mechanism(label(one.name)),
                "falls_back": one.falls_back and mechanism != Mechanism.NONE,
            }
            for one, mechanism in found
        ],
        "since_seed": asdict(since),
    }


def _described(one: InstanceType, mechanism: Mechanism) -> str:
    seed = seed_mechanism(label(one.name))
    fallback = "the default path" if one.falls_back else "nothing: it does not start without the ENA"
    rows = [
        ("mechanism", mechanism + (f" ({DERIVED})" if mechanism == Mechanism.VF82599 else "")),
        ("ENA", one.ena),
        ("falls back to", fallback),
        ("hypervisor", f"{one.hypervisor} (the type's; an instance's own field says xen for both)"),
        ("network", one.performance),
        *(("cards", _cards(cards)) for cards in one.cards),
        ("ENA Express", _yes(one.ena_express)),
        ("EFA", _yes(one.efa)),
        ("virtualization", ", ".join(one.virtualization)),
        ("packets/s limit", PPS),
        ("default path", DEFAULT_PATH if one.falls_back else "none"),
        ("as first published", seed if seed != Mechanism.NONE else "in neither list"),
    ]
    return "\n".join([one.name, *(f"  {name:<18}  {value}" for name, value in rows)])


def _cards(cards: data.Cards) -> str:
    """One line: "2 x Up to 170 Gigabit, baseline 200 Gbps, burst 200 Gbps, 256 queues"."""
    parts = [f"{cards.count} x {cards.performance}"]
    if cards.baseline_gbps is not None:
        parts.append(f"baseline {cards.baseline_gbps:g} Gbps")
    if cards.peak_gbps is not None:
        parts.append(f"burst {cards.peak_gbps:g} Gbps")
    parts.append(f"{cards.interfaces} interfaces")
    if cards.queues is not None:
        parts.append(f"{cards.queues} ENA queues")
    if cards.queues_per_interface is not None:
        parts.append(f"at most {cards.queues_per_interface} an interface")
    if cards.default_queues is not None:
        parts.append(f"{cards.default_queues} ENA queues an interface by default")
    return ", ".join(parts)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


_NO_CARD = data.Cards(0, "", None, None, 0, None, None, None)
_COLUMNS = "{:<18} {:<9} {:<11} {:<10} {:<22} {:>9} {:>7} {:>5} {:>6}  {:<7} {}"


def _print_table(found: Sequence[tuple[InstanceType, Mechanism]]) -> None:
    headings = ("type", "mechanism", "ENA", "hypervisor", "network", "baseline", "burst", "cards", "queues")
    click.echo(_COLUMNS.format(*headings, "Express", "EFA"))
    for one, mechanism in found:
        first = one.cards[0] if one.cards else _NO_CARD
        click.echo(
            _COLUMNS.format(
                one.name,
                mechanism,
                one.ena,
                one.hypervisor,
                one.performance,
                _figure(first.baseline_gbps),
                _figure(first.peak_gbps),
                sum(cards.count for cards in one.cards),
                _figure(first.queues),
                _yes(one.ena_express),
                _yes(one.efa),
            ).rstrip()
        )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _print_foot(held: Catalog, since: Differences) -> None:
    changed = [f"{name} ({then} then, {now} now)" for name, then, now in since.changed]
    click.echo(
        "\nbaseline and burst: Gbps of the first card; a dash: not told. The 82599 is "
        f"{DERIVED}.\nlimits in packets a second: {PPS}. default path: {DEFAULT_PATH}."
    )
    click.echo("since the lists as first published (a region's data lacks what that region does not sell):")
    click.echo(f"  no type in this data: {', '.join(since.gone) or 'none'}")
    click.echo(f"  another mechanism: {', '.join(changed) or 'none'}")
    click.echo(f"  new ({len(since.new)} families): {', '.join(since.new) or 'none'}")
    for source in held.sources:
        click.echo(f"source: {source['source']}, {source['date']}, {source['types']} types")
