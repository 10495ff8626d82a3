"""The texts of a page's scripts.

The file `texts.json` next to the scripts contains the English texts, by name. The context of a translation consists of
the names of the package and of the text, for example `wechat.codeTwice`.
"""

from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse

from wxauth_desk.i18n import SOURCE, find_language, languages, own_name, pgettext

# No language of the catalogues has a longer tag.
_MAX_LANGUAGE_TAG: Final = 32


def page_texts(folder: Path, request: Request) -> JSONResponse:
    """Return the texts of the page in this folder, in the language that `?language=` names, or in English."""
    language = find_language(request.query_params.get("language", "")[:_MAX_LANGUAGE_TAG]) or SOURCE
    english: dict[str, str] = from_json((folder / "texts.json").read_bytes())
    answer: dict[str, Any] = {
        "language": language,
        "languages": {tag: own_name(tag) for tag in languages()},
        "texts": {name: pgettext(f"{folder.parent.name}.{name}", text, language) for name, text in english.items()},
    }
    return JSONResponse(answer, headers={"Cache-Control": "no-cache"})
