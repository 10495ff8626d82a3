"""The picture of a scan."""

from io import BytesIO

import httpx
import segno

from tests.asking import MakeClient, MakeServices
from tests.fakes import Clock
from tests.oauth.conftest import Phone, Site, scene_of
from tests.problems import problem_of


def qr_of(text: str) -> bytes:
    """The ordinary code of a text, as PNG."""
    output = BytesIO()
    segno.make_qr(text, error="m").save(output, kind="png", scale=8)
    return output.getvalue()


async def test_an_ordinary_code_holds_the_link_and_is_there_while_the_scan_is_open(
    make_services: MakeServices, make_client: MakeClient, site: Site, phone: Phone, clock: Clock
) -> None:
    client = make_client(await make_services(scan_code="link"))
    started = await site.start()
    answer = await client.get(started["code_image"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.content == qr_of(started["verification_uri_complete"])
    scan_id = (await phone.scan(started)).json()["id"]
    assert (await client.get(started["code_image"])).status_code == 200
    await phone.decide(scan_id, "deny")
    other = await site.start()
    clock.advance(seconds=180)
    for url in (started["code_image"], other["code_image"], f"/v1/scans/{'a' * 22}/code", "/v1/scans/x/code"):
        over = await client.get(url)
        problem_of(over, "not_found", 404)
        assert "cross-origin-resource-policy" not in over.headers


async def test_no_other_answer_may_be_embedded_elsewhere(client: httpx.AsyncClient, site: Site) -> None:
    started = await site.start()
    for path in ("/d", f"/d/{scene_of(started)}", "/livez"):
        assert "cross-origin-resource-policy" not in (await client.get(path)).headers
