"""Take the README's picture: the playground as it looks with a kernel, after "Generate".

python docs/picture.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

import steerwidgets as sw

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
from browsing import CHROMIUM, FLAGS, Bridge  # noqa: E402

if __name__ == "__main__":
    model = sw.load()
    months, numbers = sw.tasks.analogues("months", "number words")
    vector = sw.contrast(model, numbers, months, name="months to numbers")
    nine = model.tokenizer.encode(" nine")[0]
    playground = sw.SteeringPlayground(
        model,
        vectors=vector,
        prompt="May, June, July, August,",
        doses={vector.name: 1.6},
        track=nine,
        max_new_tokens=24,
    )
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1000, "height": 1300}, device_scale_factor=2)
        bridge = Bridge(page, playground)
        bridge.settle(120)
        page.get_by_role("button", name="Generate").click()
        bridge.settle(120)
        page.mouse.move(0, 0)
        page.locator(".sw-widget").screenshot(path=HERE / "_static" / "playground.png")
        playground.close()
        browser.close()
