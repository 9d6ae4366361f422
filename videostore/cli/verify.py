"""``videostore verify``: what the recorder signed, against what is there."""

from __future__ import annotations

from typing import Annotated

import typer

from videostore import app as composition
from videostore.cli.output import AsJson, SiteDir, load_site, print_rows
from videostore.domain.errors import PromiseBroken

app = typer.Typer(help="Verify what the recorder signed against what is stored.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``segments`` a word of its own."""


@app.command()
def segments(
    *,
    cameras: Annotated[
        list[str] | None, typer.Option("--camera", help="Name or UUID, may be repeated; all if left out.")
    ] = None,
    content: Annotated[
        bool, typer.Option(help="Read and hash every segment; without, only the listing is compared.")
    ] = True,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Find segments that are missing, exchanged, altered or not the recorder's; exit code 70 if there are."""
    place = load_site(site)
    chosen = [place.cameras.find(name).id for name in cameras or []]
    names = {camera.id: camera.name for camera in place.cameras.all()}
    with composition.Parts(place) as parts:
        found = composition.verify_segments(parts, chosen, content=content)
    rows = [
        {
            "camera": names.get(one.camera_id, str(one.camera_id)),
            "key_id": str(one.key_id),
            "segments": one.segments,
            "verdict": one.verdict.value,
            "problem": one.problem,
        }
        for one in found
    ]
    print_rows(rows, as_json=as_json, empty="No segments yet.")
    broken = [row for row in rows if row["problem"]]
    if broken:
        raise PromiseBroken(
            f"{len(broken)} of {len(rows)} hours are not as recorded: {broken[0]['problem']}",
            hint="Keep store and ledger as they are, and find out who had access to them.",
        )
