"""``videostore policy``: the rules of this site."""

from __future__ import annotations

from typing import Any

import typer

from videostore.cli.output import AsJson, SiteDir, console, load_site, print_facts
from videostore.config.durations import show_duration
from videostore.domain.errors import ConfigInvalid

app = typer.Typer(help="Show and check the policies of a site.", no_args_is_help=True)


@app.command()
def check(*, site: SiteDir = None) -> None:
    """Read settings, cameras and policies strictly; exit code 0 if all of them are valid."""
    place = load_site(site)
    if unknown := place.unknown_in_retention():
        raise ConfigInvalid(
            f"policies/retention.yaml keeps shorter what no camera is or has: {', '.join(unknown)}",
            hint="`videostore camera list` shows UUIDs and groups.",
        )
    approvers = len(place.approvers())
    console.print(f"{place.root}: settings, cameras and policies are valid", markup=False)
    if not approvers:
        console.print(
            "  -> policies/access.yaml names no approver yet: nobody can be approved, so nobody sees footage."
        )


@app.command()
def show(*, site: SiteDir = None, as_json: AsJson = False) -> None:
    """Show the policies in force."""
    place = load_site(site)
    facts: dict[str, Any] = {}
    names = {camera.id: camera.name for camera in place.cameras.all()}
    for kind, policy in place.retention().items():
        facts[f"{kind.value} keep"] = show_duration(policy.keep)
        facts[f"{kind.value} lead"] = show_duration(policy.lead)
        facts[f"{kind.value} key_period"] = show_duration(policy.key_period)
        for one, keep in sorted(policy.shorter.items()):
            facts[f"{kind.value} keep of {names.get(one, one)}"] = show_duration(keep)
    access = place.access()
    facts["max_span"] = show_duration(access.max_span)
    facts["grant_lifetime"] = show_duration(access.grant_lifetime)
    facts["second_person"] = sorted(mode.value for mode in access.second_person)
    facts["approvers"] = sorted(place.approvers())
    facts["notice_sha256"] = access.notice_sha256
    print_facts(facts, as_json=as_json)
