"""`python -m pymig.console.translate` (part of `make docs`): the console's words in Korean.

Collects what is said in templates and code into django.po, keeps the translations that are there,
and compiles them to django.mo. What has none yet stays empty, and a test complains. Needs Babel,
which the extra `test` installs.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

HERE: Final = Path(__file__).resolve().parent
PO: Final = HERE / "locale/ko/LC_MESSAGES/django.po"
_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)
#: No day and no version of a tool in it: the same words are the same file.
_HEADER: Final = """# The console in Korean.
msgid ""
msgstr ""
"Language: ko\\n"
"Plural-Forms: nplurals=1; plural=0;\\n"
"Content-Type: text/plain; charset=utf-8\\n"

"""
_WORDS: Final = ("_", "gettext", "gettext_lazy", "noop")


def messages() -> Iterator[tuple[str, str]]:
    """Every message, and the file it is said in."""
    for path in sorted(HERE.rglob("*")):
        if path.suffix not in (".py", ".html"):
            continue
        text = path.read_text("utf-8")
        if path.suffix == ".html":
            text = templatize(text)
        for _line, message, _comments, _context in extract(
            "python", io.BytesIO(text.encode()), keywords=dict.fromkeys(_WORDS)
        ):
            yield str(message), str(path.relative_to(HERE))


def catalog(known: Catalog) -> Catalog:
    """The messages of today with the translations that are known, in the order of their words."""
    found = Catalog("ko", creation_date=_DAY, revision_date=_DAY)
    for message, where in messages():
        old = known.get(message)
        found.add(message, old.string if old else "", locations=[(where, 0)])
    return found


def compiled(translations: Catalog) -> bytes:
    """The bytes of the .mo file."""
    out = io.BytesIO()
    write_mo(out, translations)
    return out.getvalue()


def written(translations: Catalog) -> bytes:
    """The bytes of the .po file."""
    out = io.BytesIO()
    write_po(out, translations, sort_output=True, include_lineno=False, omit_header=True)
    return _HEADER.encode() + out.getvalue()


def read() -> Catalog:
    """What the .po file says; nothing where there is none."""
    return read_po(io.BytesIO(PO.read_bytes() if PO.is_file() else b""), locale="ko")


def main() -> None:
    """Write both files."""
    translations = catalog(read())
    PO.write_bytes(written(translations))
    PO.with_suffix(".mo").write_bytes(compiled(translations))
    missing = sum(1 for message in translations if message.id and not message.string)
    print(f"The console's words are collected; {missing} have no translation.")


if __name__ == "__main__":
    main()
