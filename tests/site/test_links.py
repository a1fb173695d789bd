"""Links of the built site, and what a stranger finds on it: no page is opened, ``make docs`` has written them."""

import functools
import html.parser
import json
import posixpath
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.site
SITE = Path(__file__).parents[2] / 'site'
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.glob('**/*.html'))


class Page(html.parser.HTMLParser):
    """Links with their words, names to jump to, and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.names, self.parts, self._open = [], [], set(), [], []
        self.feed(text)
        self.text = ' '.join(''.join(self.parts).split())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names |= {given[name] for name in ('id', 'name') if given.get(name)}
        self.loaded += [given[name] for name in ('src',) if given.get(name)]
        if tag == 'a' and given.get('href'):
            self.links.append([given['href'], ''])
            self._open.append(self.links[-1])
        elif tag == 'link' and given.get('href') and given.get('rel') != 'canonical':
            self.loaded.append(given['href'])

    def handle_endtag(self, tag):
        if tag == 'a' and self._open:
            self._open.pop()

    def handle_data(self, text):
        self.parts.append(text)
        for link in self._open:
            link[1] += text


@functools.cache
def page(path):
    return Page((SITE / path).read_text(encoding='utf-8'))


def target(address, origin):
    """File and anchor that an address leads to; None where it leaves the site."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    where = unquote(parts.path)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), where)) if where else origin
    path = where.lstrip('/') if where.startswith('/') else path
    path = posixpath.join(path, 'index.html') if (SITE / path).is_dir() else path
    return posixpath.normpath(path), unquote(parts.fragment)


def broken(origin):
    for address in [*(address for address, _ in page(origin).links), *page(origin).loaded]:
        found = target(address, origin)
        if found is None:
            continue
        path, anchor = found
        # '#' and '#__skip' stand for the page itself, and lines of code are anchors that a script makes.
        if not (SITE / path).is_file() or (anchor and path.endswith('.html') and anchor not in page(path).names):
            yield f'{origin}: {address}'


def test_there_are_pages():
    assert len(PAGES) > 150, 'make docs builds the site'


def test_no_link_and_no_anchor_is_broken():
    assert [each for origin in PAGES for each in broken(origin)] == []


def test_neighbours_are_linked():
    """Every page of the navigation but the first leads to the one before it, every one but the last to the next."""
    prose = [path for path in PAGES if not path.startswith(('reference/', 'source/')) and path != '404.html']
    silent = [path for path in prose if path != 'index.html' and 'Previous' not in page(path).text]
    silent += [path for path in prose if 'Next' not in page(path).text]
    assert not silent


def test_the_search_knows_pages_and_leaves_sources_out():
    found = json.loads((SITE / 'search.json').read_text(encoding='utf-8'))
    places = {item['location'].partition('#')[0] for item in found['items']}
    assert 'reference/modules.resnet/EncoderNet2d/' in places
    assert not [place for place in places if place.startswith('source/')]


def walked(*words):
    """The page, and the anchor, to which links with these words lead from the first page."""
    path, anchor = 'index.html', ''
    for word in words:
        links = [address for address, text in page(path).links if ' '.join(text.split()) == word]
        assert links, f'{path} has no link {word!r}'
        path, anchor = target(links[0], path)
    return path, anchor


# A question, at most two links from the first page, and what answers it there.
QUESTIONS = {
    'what does `block` mean': (('reference', 'EncoderNet2d'), 'Kind of the residual blocks'),
    'how do I get features': (('Features',), 'net.features('),
    'will 256³ fit': (('Memory',), 'memory_forecast('),
    'how do I continue a killed run': (('Continuing a run',), 'mdnc fit'),
    'how do I use my CSV files': (('Signals',), 'CSV'),
    'how do I export to ONNX': (('Export',), 'to_onnx('),
    'how do I predict a large volume': (('Memory',), 'Prediction, whole or in tiles'),
    'which network for signals': (('Choosing a network',), 'encnet_signals'),
    'how do I cite': (('Citing',), 'CITATION.cff'),
    'how do I train on two GPUs': (('Training', 'Many devices'), '--trainer.devices'),
}


@pytest.mark.parametrize('question', QUESTIONS)
def test_a_stranger_finds_it_within_two_clicks(question):
    words, answer = QUESTIONS[question]
    path, anchor = walked(*words)
    assert len(words) <= 2
    assert not anchor or anchor in page(path).names
    assert answer in page(path).text
