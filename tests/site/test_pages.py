"""The built site in a browser: what its pages load, how wide they are, and what their charts, tabs and search do.

``make docs`` builds it; Debian's chromium and chromium-driver open it.
"""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

pytest.importorskip('selenium')
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.site
SITE = Path(__file__).parents[2] / 'site'
ENCODER = 'reference/modules.resnet/EncoderNet2d/'
WIDTHS = (1300, 390)


def _pages():
    """All pages of prose, and the first of each package of the reference."""
    found = [path.parent.relative_to(SITE).as_posix() + '/' for path in sorted(SITE.glob('**/index.html'))]
    prose = [page for page in found if not page.startswith(('reference/', 'source/'))]
    first = {page.split('/')[1]: page for page in reversed(found) if page.startswith('reference/')}
    return [*prose, *first.values(), ENCODER]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def address():
    assert (SITE / 'index.html').is_file(), 'make docs builds the site'
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(_Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()
    server.server_close()


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    for word in ('headless', 'no-sandbox', 'disable-gpu', 'disable-background-networking', 'disable-component-update'):
        options.add_argument(f'--{word}')
    options.add_argument(f'--user-data-dir={tmp_path_factory.mktemp("profile")}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = os.environ.get('CHROMEDRIVER', shutil.which('chromedriver'))
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def _open(browser, address, page, width=1300):
    # A window of a real browser has a least width; a device does not.
    metrics = {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False}
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
    browser.get(address + page)
    _wait(browser, lambda: browser.execute_script('return document.readyState') == 'complete')


def _wait(browser, what):
    return WebDriverWait(browser, 20).until(lambda _: what())


def test_pages_load_from_here_alone_and_fit_their_window(browser, address):
    wide, cut, told, foreign = [], [], [], []
    for page in _pages():
        for width in WIDTHS:
            _open(browser, address, page, width)
            if browser.execute_script('return document.documentElement.scrollWidth > window.innerWidth'):
                wide.append((page, width))
            cut += [(page, width, words) for words in browser.execute_script(_CUT)]
            loaded = browser.execute_script('return performance.getEntriesByType("resource").map(each => each.name)')
            foreign += [(page, each) for each in loaded if not each.startswith((address, 'data:', 'blob:'))]
        told += [(page, entry['message']) for entry in browser.get_log('browser') if entry['level'] == 'SEVERE']
    assert not wide
    assert not cut
    assert not told
    assert not foreign


# Code that is not wrapped, and arguments whose words lie outside of the window.
_CUT = '''
    const wider = each => each.scrollWidth > each.clientWidth + 1
    const outside = each => each.getBoundingClientRect().right > window.innerWidth
    const code = [...document.querySelectorAll('.language-python pre > code, .language-sh pre > code')].filter(wider)
    return [...code, ...[...document.querySelectorAll('.arguments td')].filter(outside)].map(each => each.textContent)
'''


def test_images_have_words(browser, address):
    silent = []
    for page in _pages():
        _open(browser, address, page)
        silent += [page for each in browser.find_elements(By.TAG_NAME, 'img') if not each.get_attribute('alt')]
    assert not silent


def test_charts_are_drawn(browser, address):
    _open(browser, address, ENCODER)
    # Drawn charts are a box that holds the picture; until then there is a block of text.
    _wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, 'div.mermaid'))
    _wait(browser, lambda: browser.find_element(By.CSS_SELECTOR, 'div.mermaid').size['height'] > 300)
    assert not browser.find_elements(By.CSS_SELECTOR, 'pre.mermaid')


def test_tabs_switch(browser, address):
    _open(browser, address, ENCODER)
    codes, output = browser.find_elements(By.CSS_SELECTOR, 'details .tabbed-set')[-1].find_elements(
        By.CSS_SELECTOR, '.tabbed-block'
    )
    label = browser.find_elements(By.CSS_SELECTOR, 'details .tabbed-set')[-1].find_elements(
        By.CSS_SELECTOR, '.tabbed-labels label'
    )[1]
    assert codes.is_displayed()
    assert not output.is_displayed()
    browser.execute_script('arguments[0].scrollIntoView({block: "center"}); arguments[0].click()', label)
    _wait(browser, output.is_displayed)
    assert not codes.is_displayed()
    assert 'torch.Size([2, 5])' in output.text


def test_search_finds_the_encoder(browser, address):
    _open(browser, address, '')
    _wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, '.md-search__button'))
    browser.find_element(By.CSS_SELECTOR, '.md-search__button').click()
    _wait(browser, lambda: browser.execute_script(_FOCUSED) == 'INPUT')
    webdriver.ActionChains(browser).send_keys('EncoderNet2d').perform()
    _wait(browser, lambda: any(ENCODER in each for each in browser.execute_script(_LINKS)))


# The search lies in a shadow tree, which selectors do not enter.
_FOCUSED = '''
    let active = document.activeElement
    for (const each of document.querySelectorAll('*'))
        if (each.shadowRoot && each.shadowRoot.activeElement) active = each.shadowRoot.activeElement
    return active.tagName
'''
_LINKS = '''
    const found = []
    const walk = root => root.querySelectorAll('*').forEach(each => {
        if (each.shadowRoot) walk(each.shadowRoot)
        if (each.tagName === 'A' && root !== document) found.push(each.href)
    })
    walk(document)
    return found
'''
