"""Choices of a plan: what was chosen, what bound it, and what it would cost to choose otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIVEN = 'given'


@dataclass(frozen=True)
class Choice:
    """A word of the recipe with its reason.

    Args:
        word: Its place in the recipe, without ``init_args``: ``'data.batch_size'``.
        value: What was chosen.
        because: What bound it.
        instead: The runner-up with its price; empty where there is none.
    """

    word: str
    value: Any
    because: str
    instead: str = ''

    @property
    def given(self) -> bool:
        """Whether the user said it."""
        return self.because == GIVEN


class Choices:
    """The choices of a plan in the order in which they were made; words that were given stay as they are.

    Args:
        given: Values by word, which nothing overrules.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.words = dict(given)
        self.made: dict[str, Choice] = {}

    def has(self, word: str) -> bool:
        """Whether a word was given."""
        return word in self.words

    def pick(self, word: str, value: Any, because: str, instead: str = '') -> Any:
        """Choose a value, unless the word was given; returns what holds."""
        if word in self.words:
            self.made[word] = Choice(word, self.words[word], GIVEN)
        else:
            self.made[word] = Choice(word, value, because, instead)
        return self.made[word].value

    def given(self, word: str, default: Any = None) -> Any:
        """What was given for a word."""
        return self.words.get(word, default)
