# SPDX-License-Identifier: Apache-2.0
"""The page for trying models, in a browser where there is one.

It needs the Python package playwright and a Chromium among the programs.
"""

import json
import shutil
import threading
import urllib.request

import pytest

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium"),
]


@pytest.fixture
def page():
  with playwright.sync_playwright() as driver:
    browser = driver.chromium.launch(
      executable_path=CHROMIUM, args=["--no-sandbox"]
    )
    page = browser.new_page()
    problems, asked = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.asked = asked
    yield page
    assert [each for each in problems if "401" not in each] == []
    browser.close()


def set_slider(page, name, value):
  slider = page.get_by_label(name, exact=False)
  slider.evaluate("(x, value) => { x.value = value; }", value)


def test_shows_samples_side_by_side_with_probabilities(page, address):
  page.goto(address)
  playwright.expect(page.locator("#model")).to_have_text("small")
  page.fill("#prompt", "2 squared")
  page.fill("#seed", "7")
  set_slider(page, "Tokens", 16)
  page.press("#prompt", "Control+Enter")
  status = page.locator("#status")
  playwright.expect(status).to_contain_text("tokens/s", timeout=60_000)
  body = dict(prompt="2 squared", seed=7, n=3, max_tokens=16, temperature=0.8)
  request = urllib.request.Request(
    f"{address}/v1/completions", json.dumps(body).encode()
  )
  choices = json.load(urllib.request.urlopen(request))["choices"]
  shown = page.locator("article p").all_text_contents()
  assert shown == ["2 squared" + choice["text"] for choice in choices]
  token = page.locator(".token").first
  token.hover()
  own = page.locator("#tip .own")
  playwright.expect(own).to_contain_text("%")
  assert 5 <= page.locator("#tip div").count() <= 6
  page.locator("h1").hover()
  playwright.expect(page.locator("#tip")).to_be_hidden()
  assert all(url.startswith((address, "data:")) for url in page.asked)


def test_asks_for_the_api_key_and_stops_generation(page, start):
  address, service = start(key="secret")
  draw, stopped = service._batcher._generate_batch, threading.Event()

  def draw_some(rows):
    for new in draw(rows):
      yield new
      stopped.wait(timeout=30)

  service._batcher._generate_batch = draw_some
  page.goto(address)
  playwright.expect(page.locator("#status")).to_contain_text("API key")
  page.fill("#key", "secret")
  page.fill("#prompt", "2 squared")
  page.fill("#seed", "7")
  page.click("text=Write")
  playwright.expect(page.locator(".token").first).to_be_attached(timeout=60_000)
  page.click("text=Stop")
  playwright.expect(page.locator("#status")).to_have_text("Stopped.")
  stopped.set()
