"""The function that returns the texts for the scripts of a page.

The file `texts.json` next to the scripts contains the English texts by name, and the catalogues contain the
translations. The context of a translation consists of the names of the package and of the text, for example
`console.searchedBy`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse

from wxauth.i18n import SOURCE, find_language, languages, own_name, pgettext

_MAX_LANGUAGE_TAG: Final = 32
"""The number of characters after which the parameter `?language=` is cut off.

There is a limit, because callers may send any text. All language tags in use are shorter.
"""


def page_texts(folder: Path, request: Request, further_texts: Mapping[str, Callable[[str], str]]) -> JSONResponse:
    """Return a page's texts in the language that `?language=` names, or in English if there is no translation into it.

    The response also contains all languages that the page can offer, with the name of each language in that language.

    Args:
        folder: The folder of the page's scripts and of `texts.json`.
        request: The request for the texts.
        further_texts: Further texts by name, each as a function that returns the text in a given language.
    """
    language = find_language(request.query_params.get("language", "")[:_MAX_LANGUAGE_TAG]) or SOURCE
    english: dict[str, str] = from_json((folder / "texts.json").read_bytes())
    texts = {name: pgettext(f"{folder.parent.name}.{name}", text, language) for name, text in english.items()}
    answer: dict[str, Any] = {
        "language": language,
        "languages": {tag: own_name(tag) for tag in languages()},
        "texts": texts | {name: translated(language) for name, translated in further_texts.items()},
    }
    return JSONResponse(answer, headers={"Cache-Control": "no-cache"})
