"""The pages the gateway serves: the stream overlay and its setup, the hosted donate form, the thanks page.

Pure functions from a drive's data to HTML, and the scripts and styles of the pages. The caller looks up the
drive, sends `page_headers(kind)` with the bytes, and serves `/assets/` from `assets_app`.
"""

from gateway.pages.assets import asset_url, assets_app, embed_script, static
from gateway.pages.form_token import FORM_TOKEN_LIFE, check_form_token, mint_form_token
from gateway.pages.gift_menu import OtherCurrency
from gateway.pages.headers import page_headers
from gateway.pages.render import (
    Creators,
    donate_page,
    drive_refs,
    overlay_page,
    pay_page,
    problem_page,
    setup_page,
    thanks_page,
)

__all__ = [
    "FORM_TOKEN_LIFE",
    "Creators",
    "OtherCurrency",
    "asset_url",
    "assets_app",
    "check_form_token",
    "donate_page",
    "drive_refs",
    "embed_script",
    "mint_form_token",
    "overlay_page",
    "page_headers",
    "pay_page",
    "problem_page",
    "setup_page",
    "static",
    "thanks_page",
]
