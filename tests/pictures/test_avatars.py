"""Phones upload pictures. wxauth serves them small and without metadata, and deletes them with their last reference."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import count
from typing import Any

import httpx
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from starlette.requests import Request

from tests.fakes import OTHER_APP
from tests.pictures.samples import MAKER, RED, encoded, every_format, is_close, plain
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import Body, Stage, bearer, behind, body_of, leave, unread
from wxauth.limits.queries import PICTURES
from wxauth.pictures.avatars import MAX_UPLOADS_OF_ONE_SESSION
from wxauth.pictures.routes import uploaded_file
from wxauth.pictures.thumbnails import MAX_SIDE
from wxauth_guard.errors import InvalidRequest

MAX_FILE = 2 * 1024 * 1024
GPS = 0x8825
BOUNDARY = b"-" * 8
A_FILE = 'Content-Disposition: form-data; name="file"; filename="a"'


def padded(file: bytes, size: int) -> bytes:
    """Pad a JPEG to this size. Decoders ignore bytes after its end."""
    return file.ljust(size, b"\0")


def multipart(*parts: tuple[str, bytes], boundary: bytes = BOUNDARY) -> dict[str, Any]:
    """Build a multipart body from parts, each with a header and content."""
    body = b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary, header.encode(), content) for header, content in parts)
    content_type = f"multipart/form-data; boundary={boundary.decode()}"
    return {"content": body + b"--%s--\r\n" % boundary, "headers": {"Content-Type": content_type}}


@dataclass(frozen=True, slots=True)
class Album:
    """The stage with Alice, who uploads pictures."""

    stage: Stage
    alice: Body
    shades: Iterator[int]

    async def post(self, *, by: Body | None = None, **request: Any) -> httpx.Response:
        headers = {**request.pop("headers", {}), **bearer(by or self.alice)}
        return await self.stage.client.post("/v1/me/avatar", headers=headers, **request)

    async def upload(self, file: bytes, **request: Any) -> httpx.Response:
        """Upload a file as `wx.uploadFile` does."""
        parts = {"file": ("tmp_5d41402abc4b2a76b971", file, "application/octet-stream")}
        return await self.post(files=parts, **request)

    async def uploaded(self, **by: Any) -> str:
        """Upload any picture, and return its URL."""
        answer = body_of(await self.upload(encoded(plain(colour=(next(self.shades), 0, 0))), **by))
        return answer["avatar_url"]


@pytest.fixture
async def album(stage: Stage) -> Album:
    return Album(stage, alice=await stage.login("alice"), shades=count())


# Conversion.


@every_format
async def test_avatar_url_points_to_the_uploaded_picture(album: Album, kind: str) -> None:
    answer = await album.upload(encoded(plain(), kind), data={"also": "a field of formData"})
    url = answer.json()["avatar_url"]
    assert url.startswith("https://auth.test/v1/avatars/")
    assert answer.json() == {**album.alice["user"], "avatar_url": url}
    assert answer.headers["cache-control"] == "no-store"
    assert (await album.stage.me(album.alice)).json() == answer.json()
    picture = await album.stage.client.get(url)
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")
    assert is_close(Image.open(BytesIO(picture.content)).getpixel((30, 20)), RED)


@pytest.mark.parametrize("alpha", [255, 100])
@every_format
async def test_a_picture_is_stored_without_metadata(album: Album, kind: str, alpha: int) -> None:
    exif = Image.Exif()
    exif[MAKER] = "a phone"
    exif.get_ifd(GPS).update({1: "N", 2: (39.0, 54.0, 15.0)})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngInfo()
    text.add_text("Comment", "at home")
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"comment": "at home", "xmp": b"<x:xmpmeta>at home</x:xmpmeta>"},
        "PNG": {"pnginfo": text},
        "WEBP": {"xmp": b"<x:xmpmeta>at home</x:xmpmeta>"},
    }
    picture = plain("RGB" if kind == "JPEG" else "RGBA", colour=RED if kind == "JPEG" else (*RED, alpha))
    file = encoded(picture, kind, exif=exif, icc_profile=profile, **options[kind])
    assert b"a phone" in file
    assert b"at home" in file
    content = (await album.stage.client.get((await album.upload(file)).json()["avatar_url"])).content
    assert not [word for word in (b"a phone", b"at home", b"Exif", b"eXIf", b"ICC", b"iCCP", b"xmp") if word in content]
    assert Image.open(BytesIO(content)).info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


# Rejected files.


@pytest.mark.parametrize(
    ("file", "is_of_another_kind"),
    [
        (b"GIF89a", True),
        (encoded(plain())[:300], True),
        (encoded(plain("L", (1, MAX_SIDE + 1), 90), "PNG"), False),
        (encoded(plain("1", (8000, 6000), 1), "PNG"), False),
    ],
    ids=["GIF", "cut off", "too long", "of 48 megapixels"],
)
async def test_a_picture_that_is_none_is_refused_and_nothing_is_stored(
    album: Album, file: bytes, is_of_another_kind: bool
) -> None:
    problem = problem_of(await album.upload(file), "invalid_request", 422)
    assert [error["field"] for error in problem["errors"]] == ["file"]
    for text in (problem["detail"], problem["title"]):
        assert ("JPEG, PNG or WebP" in text) == is_of_another_kind
    assert await album.stage.number("avatars") == 0


WHOLE = multipart((A_FILE, encoded(plain())))


@swept(
    "request_",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"json": {"file": "x"}}, id="json"),
        pytest.param({"data": {"file": "x"}}, id="urlencoded"),
        pytest.param({"content": encoded(plain()), "headers": {"Content-Type": "image/jpeg"}}, id="bare"),
        pytest.param({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, id="no-boundary"),
        pytest.param(
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=--------"}}, id="no-multipart"
        ),
        pytest.param({"files": {"picture": ("a", encoded(plain()))}}, id="another-field"),
        pytest.param({"files": [("file", ("a", encoded(plain()))), ("file", ("b", encoded(plain())))]}, id="two-files"),
        pytest.param({"files": [("file", ("a", encoded(plain()))), ("other", ("b", b"x"))]}, id="another-file"),
        pytest.param(
            {"files": {"file": ("a", encoded(plain()))}, "data": {f"f{n}": "x" for n in range(50)}}, id="many-fields"
        ),
        pytest.param(
            {"files": {"file": ("a", encoded(plain()))}, "data": {"file": "x"}}, id="a-file-and-a-field-of-that-name"
        ),
        pytest.param(multipart(('Content-Disposition: form-data; name="file"', b"text")), id="a-text-field"),
        pytest.param(multipart(("Content-Disposition: form-data", b"text")), id="no-name"),
        pytest.param({**WHOLE, "content": WHOLE["content"][:-20]}, id="broken-off"),
        pytest.param(multipart(("X: " + "x" * 10_000, b"text")), id="long-header"),
    ],
)
async def test_a_body_without_one_file_is_refused(album: Album, request_: dict[str, Any]) -> None:
    answer = await album.post(**request_)
    problem = problem_of(answer, "invalid_request", 422)
    assert [error["field"] for error in problem["errors"]] == ["file"]
    is_named_otherwise = "picture" in request_.get("files", ())
    assert ("wx.uploadFile({ name: 'file' })" in problem["detail"]) == is_named_otherwise


@pytest.mark.parametrize("length", [1, 30, 100, 300, -20, -3, -2])
async def test_an_upload_that_was_cut_off_is_told_that(album: Album, length: int) -> None:
    answer = await album.post(**{**WHOLE, "content": WHOLE["content"][:length]})
    if length == -2:  # only the last line break is missing
        assert answer.status_code == 200
    else:
        [error] = problem_of(answer, "invalid_request", 422)["errors"]
        assert error == {"field": "file", "message": "Must be complete, but the upload was cut off. Send it again"}


async def test_a_picture_in_a_part_without_a_file_name_is_told_that(album: Album) -> None:
    answer = await album.post(**multipart(('Content-Disposition: form-data; name="file"', encoded(plain()))))
    assert "Must have a file name" in problem_of(answer, "invalid_request", 422)["detail"]


@pytest.mark.parametrize(("length", "is_taken"), [(1, False), (7, False), (8, True), (70, True), (71, False)])
async def test_a_boundary_has_8_to_70_characters(album: Album, length: int, is_taken: bool) -> None:
    answer = await album.post(**multipart((A_FILE, encoded(plain())), boundary=b"b" * length))
    if is_taken:
        assert answer.status_code == 200, answer.text
    else:
        problem_of(answer, "invalid_request", 400)


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize(("size", "is_taken"), [(MAX_FILE, True), (MAX_FILE + 1, False), (3 * MAX_FILE, False)])
@pytest.mark.slow
async def test_a_file_has_2_mib_at_most(
    album: Album, monkeypatch: pytest.MonkeyPatch, size: int, is_taken: bool, is_chunked: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nothing/can/be/written/here")
    note = 'Content-Disposition: form-data; name="note"', b"x" * 4000
    whole = multipart((A_FILE, padded(encoded(plain()), size)), note)
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for start in range(0, len(whole["content"]), 10_000):
            read = start
            yield whole["content"][start : start + 10_000]

    content = chunks() if is_chunked else whole["content"]
    answer = await album.post(content=content, headers=whole["headers"])
    assert ("content-length" in answer.request.headers) is not is_chunked
    if is_taken:
        assert answer.status_code == 200
    else:
        assert problem_of(answer, "payload_too_large", 413)["title"] == "Pictures can be up to 2 MB."
    assert read < MAX_FILE + 100_000


@pytest.mark.parametrize(
    ("headers", "code", "status"),
    [
        ({"Content-Length": str(10**12)}, "missing_token", 401),
        ({"Content-Length": str(10**12), "Authorization": "ALICE"}, "payload_too_large", 413),
        ({"Authorization": "Bearer x"}, "invalid_token", 401),
    ],
)
async def test_a_file_that_will_not_be_taken_is_not_read(
    album: Album, headers: dict[str, str], code: str, status: int
) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=--------", **headers}
    if headers.get("Authorization") == "ALICE":
        headers |= bearer(album.alice)
    problem_of(await album.stage.client.post("/v1/me/avatar", content=unread(), headers=headers), code, status)


async def test_a_file_that_does_not_come_is_given_up() -> None:
    async def receive() -> Any:
        return await asyncio.Future()

    headers = [(b"content-type", b"multipart/form-data; boundary=--------")]
    request = Request({"type": "http", "headers": headers}, receive)
    with pytest.raises(InvalidRequest) as refused:
        await uploaded_file(request, patience=0.01)
    assert refused.value.status == 408


async def test_a_body_that_comes_at_once_is_parsed_in_pieces() -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    whole = multipart((A_FILE, (b"\r\n--" + BOUNDARY + b"x") * 70_000))

    async def receive() -> Any:
        return {"type": "http.request", "body": whole["content"]}

    headers = [(b"content-type", whole["headers"]["Content-Type"].encode())]
    others = asyncio.create_task(take_turns())
    file = await uploaded_file(Request({"type": "http", "headers": headers}, receive))
    others.cancel()
    assert len(file) > 900_000
    assert turns > 100


# Many uploads at once.


@pytest.mark.slow
async def test_uploads_at_once_hold_nobody_up(album: Album) -> None:
    file = encoded(plain("RGBA", (4096, 4096), (*RED, 128)), "PNG", compress_level=1)
    uploads = [asyncio.create_task(album.upload(file)) for _ in range(MAX_UPLOADS_OF_ONE_SESSION)]
    answered = 0
    while not all(task.done() for task in uploads):
        await asyncio.sleep(0.001)  # without this pause, the threads that decode would mostly wait for the interpreter
        assert (await album.stage.client.get("/livez")).status_code == 200
        answered += 1
    assert answered > 10 * len(uploads)  # if decoding blocked the loop, there would be two or three requests per upload
    urls = {task.result().json()["avatar_url"] for task in uploads}
    assert len(urls) == len(uploads)
    kept = [url for url in urls if (await album.stage.client.get(url)).status_code == 200]
    assert kept == [await album.stage.rows.fetchval("SELECT avatar_url FROM users")]
    assert await album.stage.number("avatars") == 1


@pytest.mark.slow
async def test_a_users_uploads_queue_without_delaying_other_users(album: Album) -> None:
    bob = await album.stage.login("bob")
    # The pictures are so large that even on a busy machine, decoding one takes longer than the other user's request.
    file = encoded(plain("RGBA", (4096, 4096), (*RED, 128)), "PNG", compress_level=1)
    uploads = [asyncio.create_task(album.upload(file)) for _ in range(MAX_UPLOADS_OF_ONE_SESSION)]
    await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
    assert (await album.upload(encoded(plain()), by=bob)).status_code == 200
    assert sum(task.done() for task in uploads) <= MAX_UPLOADS_OF_ONE_SESSION // 2
    assert {answer.status_code for answer in await asyncio.gather(*uploads)} == {200}


async def test_more_uploads_than_there_is_room_for_come_back_later(album: Album) -> None:
    begun, may_end = asyncio.Semaphore(0), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield WHOLE["content"][:100]
        begun.release()
        await may_end.wait()
        yield WHOLE["content"][100:]

    async def send() -> httpx.Response:
        return await album.post(content=slow(), headers=WHOLE["headers"])

    uploads = [asyncio.create_task(send()) for _ in range(MAX_UPLOADS_OF_ONE_SESSION)]
    for _ in uploads:
        await begun.acquire()
    too_many = await send()
    problem_of(too_many, "rate_limited", 429)
    assert int(too_many.headers["retry-after"]) > 0
    assert await album.uploaded(by=await album.stage.login("bob"))
    assert await album.uploaded(by=await album.stage.login("alice"))  # another session of the same user
    may_end.set()
    assert {answer.status_code for answer in await asyncio.gather(*uploads)} == {200}
    assert await album.uploaded()


async def test_a_broken_picture_counts_toward_the_limit(album: Album) -> None:
    for _ in range(PICTURES.at_most):
        problem_of(await album.upload(b"GIF89a"), "invalid_request", 422)
    problem_of(await album.upload(encoded(plain())), "rate_limited", 429)


# How pictures are served.


async def test_a_picture_may_be_cached_for_a_day(album: Album) -> None:
    url = await album.uploaded()
    picture = await album.stage.client.get(url)
    assert picture.headers["cache-control"] == "public, max-age=86400, must-revalidate"
    assert picture.headers["content-disposition"] == "inline"
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in picture.headers["content-security-policy"]
    head = await album.stage.client.head(url)
    for answer in (picture, head):
        del answer.headers["x-request-id"]
    assert (head.status_code, head.headers) == (200, picture.headers)
    for tag in (picture.headers["etag"], f'"other", W/{picture.headers["etag"]}', "*"):
        again = await album.stage.client.get(url, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == picture.headers["etag"]
        assert again.headers["cache-control"] == picture.headers["cache-control"]
    assert (await album.stage.client.get(url, headers={"If-None-Match": '"other"'})).content == picture.content


async def test_neither_a_pictures_url_identifies_the_user_nor_the_log_the_picture(album: Album) -> None:
    before = len(album.stage.log_lines())
    urls = [await album.uploaded() for _ in range(3)]
    names = [url.rpartition("/")[2] for url in urls]
    assert len(set(names)) == 3
    assert {len(name) for name in names} == {22 + len(".jpg")}  # 128 bits in Base64
    assert not [url for url in urls if album.alice["user"]["id"] in url or album.alice["user"]["openid"] in url]
    for line, name in zip(album.stage.log_lines()[before:], names, strict=True):
        assert (line["event"], line["user_id"]) == ("profile_changed", album.alice["user"]["id"])
        assert name not in str(line)


@swept("change", [lambda name: name[:-3] + "png", lambda name: name[:-4], lambda name: "A" * 22 + ".jpg", str.swapcase])
async def test_another_url_of_a_picture_is_not_found(album: Album, change: Callable[[str], str]) -> None:
    path, _, name = (await album.uploaded()).rpartition("/")
    for method in ("GET", "HEAD"):
        assert (await album.stage.client.request(method, f"{path}/{change(name)}")).status_code == 404
    problem_of(await album.stage.client.get(f"{path}/{change(name)}", headers={"If-None-Match": "*"}), "not_found", 404)


@swept(
    ("name", "status"),
    [
        ("", 404),
        ("%00", 400),
        ("x" * 5000 + ".jpg", 404),
        ("a" * 22 + ".jpg%0a", 400),
        ("..%2f..%2fme", 404),
        ("../me", 401),  # this path is /v1/me
    ],
)
async def test_an_unknown_file_name_is_not_found(album: Album, name: str, status: int) -> None:
    assert (await album.stage.client.get(f"https://auth.test/v1/avatars/{name}")).status_code == status


@pytest.mark.parametrize("arrives_at", ["/auth", ""])
async def test_pictures_work_under_an_issuer_with_a_path(album: Album, arrives_at: str) -> None:
    client = await album.stage.make(issuer="https://auth.test/auth")
    alice = (await client.post(f"{arrives_at}/v1/login", json={"code": album.stage.wechat.code_for("alice")})).json()

    async def upload(size: int) -> httpx.Response:
        parts = {"file": ("a", padded(encoded(plain()), size))}
        return await client.post(f"{arrives_at}/v1/me/avatar", files=parts, headers=bearer(alice))

    url = (await upload(MAX_FILE)).json()["avatar_url"]
    assert url.startswith("https://auth.test/auth/v1/avatars/")
    assert (await client.get(url.replace("/auth/", f"{arrives_at}/", 1))).status_code == 200
    assert "2 MB" in problem_of(await upload(MAX_FILE + 1), "payload_too_large", 413)["title"]


# How pictures are deleted.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("PATCH", {"avatar_url": None}),
        ("POST", {"avatarUrl": ""}),
        ("PATCH", {"avatar_url": "https://a.example/1.png"}),
        ("LOGIN", {"avatarUrl": "https://a.example/1.png"}),
        ("DELETE", {"login_code": "openid-a1-alice"}),
        ("UPLOAD", {}),
    ],
)
async def test_a_picture_is_deleted_when_avatar_url_no_longer_points_to_it(
    album: Album, method: str, change: dict[str, str | None]
) -> None:
    url, other_url = await album.uploaded(), await album.uploaded(by=await album.stage.login("bob"))
    if method == "LOGIN":
        await album.stage.login("alice", **change)
    elif method == "UPLOAD":
        assert (await album.stage.client.get(await album.uploaded())).status_code == 200
    else:
        answer = await album.stage.client.request(method, "/v1/me", json=change, headers=bearer(album.alice))
        assert answer.is_success, answer.text
    for headers in ({}, {"If-None-Match": f'"{url.rpartition("/")[2]}"'}):
        problem_of(await album.stage.client.get(url, headers=headers), "not_found", 404)
    assert (await album.stage.client.get(other_url)).status_code == 200
    assert await album.stage.number("avatars") == (2 if method == "UPLOAD" else 1)


async def test_a_picture_stays_when_anything_else_changes(album: Album) -> None:
    url = await album.uploaded()
    await album.stage.login("alice", nickname="Alice")
    await album.stage.refresh(album.alice)
    changed = await album.stage.client.patch("/v1/me", json={"nickname": "Alicia"}, headers=bearer(album.alice))
    await album.stage.rows.execute("UPDATE users SET roles = '{editor}', status = 'disabled'")
    assert changed.json()["avatar_url"] == url
    assert (await album.stage.client.get(url)).status_code == 200


@pytest.mark.parametrize("change", ["DELETE FROM users", "UPDATE users SET status = 'disabled'"])
async def test_an_upload_that_comes_after_an_erasure_or_a_ban_leaves_nothing(album: Album, change: str) -> None:
    problem_of(await behind(album.stage.rows, album.upload(encoded(plain())), change), "invalid_token", 401)
    assert await album.stage.number("avatars") == 0


# The picture's own URL, sent back to wxauth.


@pytest.mark.slow
@pytest.mark.parametrize("how", ["PATCH", "POST", "LOGIN"])
@pytest.mark.parametrize("issuer", ["https://auth.test", "http://127.0.0.1:8000", "https://auth.test/auth"])
async def test_the_url_of_an_uploaded_picture_changes_nothing(album: Album, issuer: str, how: str) -> None:
    album = replace(album, stage=await album.stage.replica(issuer=issuer))
    alice, bob = await album.stage.login("alice"), await album.stage.login("bob")
    former, current, other = [await album.uploaded(by=by) for by in (alice, alice, bob)]
    for url in (current, former, other, f"{current}?v=2"):
        fields = {"avatar_url": url, "nickname": "Alice"}
        if how == "LOGIN":
            user = (await album.stage.login("alice", **fields))["user"]
        else:
            user = (await album.stage.client.request(how, "/v1/me", json=fields, headers=bearer(alice))).json()
        assert (user["avatar_url"], user["nickname"]) == (current, "Alice")
    for url in (current, other):
        assert (await album.stage.client.get(url.removeprefix(issuer))).status_code == 200
        assert (await album.stage.login("carol", avatar_url=url))["user"]["avatar_url"] is None


@swept(
    "path",
    [
        "wxfile://tmp_5d41402abc4b2a76b971.jpg",
        "http://tmp/5d41402abc4b2a76b971.jpeg",
        "http://usr/5d41402abc4b2a76b971.jpeg",
        "https://tmp/5d41402abc4b2a76b971.jpeg",
        "HTTPS://TMP",
        "file:///tmp/5d41402abc4b2a76b971.jpg",
        "blob:https://a.example/5d41402abc4b2a76b971",
        "/tmp/5d41402abc4b2a76b971.jpg",
        "http://127.0.0.1:8000/v1/avatars/5d41402abc4b2a76b97122.jpg",
    ],
)
@swept("how", ["PATCH", "POST"])
async def test_a_picture_on_the_phone_has_to_be_uploaded(album: Album, how: str, path: str) -> None:
    assert (await album.stage.login(avatar_url=path))["ignored"] == {"avatar_url": "invalid_request"}
    answer = await album.stage.client.request(how, "/v1/me", json={"avatar_url": path}, headers=bearer(album.alice))
    (error,) = problem_of(answer, "invalid_request", 422)["errors"]
    assert error["field"] == "avatar_url"
    assert "POST /v1/me/avatar" in error["message"]
    assert "5d41402abc4b2a76b971" not in answer.text


# Two users who are merged.


@pytest.mark.parametrize("holder_has", [None, "a picture", "a URL"])
@pytest.mark.slow
async def test_a_picture_follows_the_person_when_two_users_become_one(album: Album, holder_has: str | None) -> None:
    former_url = await album.uploaded()
    fields = {"avatar_url": "https://a.example/1.png"} if holder_has == "a URL" else {}
    holder = await album.stage.login("alice", app=OTHER_APP, unionid="union-alice", **fields)
    expected = {None: former_url, "a URL": "https://a.example/1.png"}.get(holder_has) or await album.uploaded(by=holder)

    linked = await album.stage.login("alice", unionid="union-alice")

    user = linked["user"]
    assert (user["id"], user["avatar_url"]) == (holder["user"]["id"], expected)
    assert (await album.stage.client.get(former_url)).status_code == (200 if expected == former_url else 404)
    if holder_has == "a picture":
        assert (await album.stage.client.get(expected)).status_code == 200
    owners = await album.stage.rows.fetch("SELECT user_id::text FROM avatars")
    assert [row[0] for row in owners] == ([] if holder_has == "a URL" else [user["id"]])
    await leave(album.stage.client, linked)
    assert await album.stage.number("avatars") == 0
