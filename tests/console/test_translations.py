"""The Korean words: all there, compiled, and of today's templates."""

from __future__ import annotations

import gettext
import io
import re

import pytest

from pymig.console import translate

OLD = "the console's words are not up to date: run `make docs`"
pytestmark = pytest.mark.once


def test_words_are_collected_translated_and_compiled() -> None:
    known = translate.read()
    found = translate.catalog(known)
    assert len(found) > 150
    assert [message.id for message in found if message.id and not message.string] == []
    assert translate.PO.read_bytes() == translate.written(found), OLD
    mo = translate.PO.with_suffix(".mo").read_bytes()
    there = gettext.GNUTranslations(io.BytesIO(mo))
    made = gettext.GNUTranslations(io.BytesIO(translate.compiled(found)))
    for message in filter(lambda message: message.id, found):
        assert there.gettext(str(message.id)) == made.gettext(str(message.id)), OLD


def test_translations_keep_what_is_filled_in() -> None:
    for message in translate.read():
        for name in re.findall(r"%\(\w+\)s", str(message.id)):
            assert name in str(message.string)
