"""Signing in, for servers that several people share: off unless the server's secrets ask for it.

With a section ``[auth]`` in Streamlit's secrets (OpenID Connect; README, "A server for several
people") nobody sees a page before the provider knows them. ``[mimicscope]`` with ``emails`` or
``domains`` names who of those may come in; without either, everyone whom the provider knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app.components.shared.errors import show_failure
from app.text import plain


def signed_in() -> bool:
    """Whether this tab may see the pages; shows what to do where it may not."""
    if not st.secrets.load_if_toml_exists() or "auth" not in st.secrets:
        return True
    if not st.user.get("is_logged_in"):
        st.title("Mimicscope", anchor=False)
        st.button("Sign in", type="primary", icon=":material/login:", on_click=st.login)
        return False
    email = str(st.user.get("email") or "")
    verified = st.user.get("email_verified") is not False
    if not (verified and may_enter(email, st.secrets.get("mimicscope", {}))):
        show_failure(
            "this account may not use this server",
            got=email or "an account without an e-mail address",
            allowed=None,
            next_step="sign in with another account, or ask whoever runs the server",
        )
        st.button("Sign out", on_click=st.logout)
        return False
    with st.sidebar:
        st.caption(f"Signed in as {plain(email)}")
        st.button("Sign out", type="tertiary", icon=":material/logout:", on_click=st.logout)
    return True


def may_enter(email: str, rules: Mapping[str, Any]) -> bool:
    """Whether the rules let the owner of ``email`` in; without rules everyone may."""
    emails = {str(one).casefold() for one in rules.get("emails", ())}
    domains = {str(one).casefold().removeprefix("@") for one in rules.get("domains", ())}
    if not emails and not domains:
        return True
    name, at, domain = email.casefold().rpartition("@")
    return email.casefold() in emails or bool(name and at and domain in domains)
