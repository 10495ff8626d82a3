"""A sealed value opens only with its key and in its context, and only if it is unaltered."""

import inspect
import re
from contextlib import aclosing
from types import SimpleNamespace

import pytest

from tests.world import Rows
from wxauth.apps.queries import reseal_app
from wxauth.checks import sealed as stored_kinds
from wxauth.core import sealing
from wxauth.core.database import Database
from wxauth.core.sealing import CannotOpen, Sealer, derive_key
from wxauth.service import resealing

KEY, FORMER_KEY = (bytes([n]) * 32 for n in range(2))
CONTEXT = b"session_key\0wxa\0openid-alice"
SECRET = b"0123456789abcdef"
# Values that expire within two hours, or are never stored, are never sealed again.
SHORT_LIVED = {"hinted_user_context", "js_ticket_context", "link_number_context"}


@pytest.fixture
def sealer() -> Sealer:
    return Sealer([KEY, FORMER_KEY])


def test_a_value_that_another_version_has_sealed_opens(sealer: Sealer) -> None:
    """The stored form never changes, so this value is a literal and not made by the code that opens it."""
    sealed = bytes.fromhex(
        "01fbadc211ae957db717f349f2997b9660b4efbfc883b3e28f0d408f6075193526434b3f2d82548f188d1f4da33381d3ac"
    )
    assert sealer.open(sealed, context=CONTEXT) == SECRET
    prefix = sealed[:5]  # it contains the version and identifies the key
    assert sealer.seal(SECRET, context=CONTEXT)[:5] == prefix


@pytest.mark.parametrize(
    "context", [b"", b"session_key\0wxb\0openid-alice", b"session_key\0wxa\0openid-bob", CONTEXT + b"\0"]
)
def test_a_sealed_value_opens_only_in_its_context(sealer: Sealer, context: bytes) -> None:
    with pytest.raises(CannotOpen):
        sealer.open(sealer.seal(SECRET, context=CONTEXT), context=context)


def test_an_altered_shortened_or_extended_value_does_not_open(sealer: Sealer) -> None:
    sealed = sealer.seal(SECRET, context=CONTEXT)
    flipped = (int.from_bytes(sealed) ^ 1 << bit for bit in range(len(sealed) * 8))
    cut = (sealed[:end] for end in range(len(sealed)))
    for altered in (*(number.to_bytes(len(sealed)) for number in flipped), *cut, sealed + b"\0", sealed[1:]):
        with pytest.raises(CannotOpen):
            sealer.open(altered, context=CONTEXT)


def test_a_value_is_sealed_differently_each_time(sealer: Sealer) -> None:
    assert len({sealer.seal(b"", context=CONTEXT) for _ in range(100)}) == 100


def test_each_stored_context_is_checked_resealed_and_forgotten() -> None:
    contexts = {name for name in vars(sealing) if re.fullmatch(r"[a-z]\w*_context", name)}
    checked = set(re.findall(r"sealing\.(\w+_context)", inspect.getsource(stored_kinds)))
    assert checked == contexts - SHORT_LIVED, "add a kind to checks/sealed.py, or a reason to SHORT_LIVED"
    kinds = {name for name, value in vars(stored_kinds).items() if isinstance(value, stored_kinds.SealedKind)}
    assert len(kinds) == len(checked)
    of_command = inspect.getsource(resealing)
    in_sample = inspect.getsource(stored_kinds.some_values)
    for kind in kinds:
        assert len(re.findall(rf"\b{kind}\.opens\(", of_command)) == 1, f"`secret forget` must erase {kind}"
        resealed = re.findall(rf"\breseal_row\({kind}\b|\b{kind}\.resealed\(", of_command)
        assert len(resealed) == 1, f"`secret reseal` must replace {kind}"
        assert kind in in_sample or kind == "SEALED_SIGNING_KEYS", f"`some_values` must return {kind}"


def test_each_purpose_has_a_key_of_its_own() -> None:
    keys = {derive_key(key, purpose) for key in (KEY, FORMER_KEY) for purpose in ("seal", "seal/id", "refresh-token")}
    assert len(keys) == 6
    assert KEY not in keys


def test_errors_and_reprs_show_no_secret(sealer: Sealer) -> None:
    sealed = sealer.seal(SECRET, context=CONTEXT)
    assert SECRET not in sealed
    with pytest.raises(CannotOpen) as failure:
        sealer.open(sealed, context=b"")
    shown = repr(sealer) + repr(failure.value)
    assert not any(repr(secret)[2:-1] in shown or secret.hex() in shown for secret in (KEY, derive_key(KEY, "seal")))


async def test_a_sealed_value_that_has_changed_since_it_was_read_is_not_replaced(database_url: str, rows: Rows) -> None:
    await rows.execute("INSERT INTO apps (app_id, fields, secrets, created_at) VALUES ('wx1', '{}', 'now', now())")
    async with aclosing(Database(database_url)) as database:
        for read, is_replaced in ((b"then", False), (b"now", True)):
            assert await reseal_app(database, SimpleNamespace(app_id="wx1", secrets=read), b"anew") is is_replaced
            assert await rows.fetchval("SELECT secrets = 'anew' FROM apps") is is_replaced
