"""Entry of the app: pages, the run picker, and the place where errors become messages.

Started by ``python -m mimic_core app`` or ``streamlit run app/serve.py``; runs are read from
``MIMICSCOPE_RUNS`` (default ``./runs``), and the bundled demo run is always there.
"""

from __future__ import annotations

import sys
from pathlib import Path

# ``streamlit run`` puts only this file's folder on the search path; the packages are one level up.
ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

import streamlit as st  # noqa: E402 - after the search path

from app.components.shared.errors import errors_shown  # noqa: E402
from app.components.shared.shell import page_style, sidebar  # noqa: E402
from app.components.shared.sign_in import signed_in  # noqa: E402

PAGES = [
    st.Page("views/explore.py", title="Explore", icon=":material/scatter_plot:", default=True),
    st.Page("views/dynamics.py", title="Dynamics", icon=":material/timeline:"),
    st.Page("views/filters.py", title="Filters", icon=":material/filter_alt:"),
    st.Page("views/prove.py", title="Prove", icon=":material/balance:"),
    st.Page("views/export.py", title="Export", icon=":material/download:"),
    st.Page("views/data.py", title="Data and scoring", icon=":material/database:"),
    st.Page("views/train.py", title="Train", icon=":material/model_training:"),
]

st.set_page_config(page_title="Mimicscope", page_icon=":material/troubleshoot:", layout="wide")
st.logo(str(Path(__file__).with_name("logo.svg")), size="large")
page = st.navigation(PAGES, position="sidebar")
page_style()
with errors_shown():
    if signed_in():
        sidebar()
        page.run()
