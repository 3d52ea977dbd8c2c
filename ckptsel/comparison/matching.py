"""Which candidate of one ranking is which of another: by the digest of its tensors, else by its name."""

from dataclasses import dataclass

from ckptsel.results.ranking import Ranking, Row

DIGEST, NAME = "digest", "name"


@dataclass(frozen=True)
class Pair:
    """The same candidate in both rankings. by: `digest`, or `name` where the digests differ."""

    first: Row
    second: Row
    by: str


@dataclass(frozen=True)
class Matched:
    """pairs: in the order of the first ranking. only_first, only_second: rows without a partner."""

    pairs: tuple[Pair, ...]
    only_first: tuple[Row, ...]
    only_second: tuple[Row, ...]

    def partner(self, name: str) -> Row | None:
        """The row of the second ranking for a candidate of the first."""
        return next((pair.second for pair in self.pairs if pair.first.name == name), None)

    def turned(self) -> "Matched":
        """The same with the second ranking first."""
        pairs = tuple(Pair(pair.second, pair.first, pair.by) for pair in self.pairs)
        return Matched(pairs, self.only_second, self.only_first)


def match(first: Ranking, second: Ranking) -> Matched:
    """The candidates of two rankings side by side. Copies are left out: their originals stand for
    them."""
    left = {row.name: row for row in second if row.copy_of is None}
    by_digest = {(row.digest, row.layer): row for row in left.values() if row.digest}
    rows = [row for row in first if row.copy_of is None]
    found: dict[str, Pair] = {}
    for row in rows:
        other = by_digest.get((row.digest or "", row.layer))
        if other is not None and other.name in left:
            found[row.name] = Pair(row, left.pop(other.name), DIGEST)
    for row in rows:
        if row.name not in found and row.name in left:
            found[row.name] = Pair(row, left.pop(row.name), NAME)
    return Matched(
        tuple(found[row.name] for row in rows if row.name in found),
        tuple(row for row in rows if row.name not in found),
        tuple(left.values()),
    )
