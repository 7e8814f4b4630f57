"""The app as a server: streamlit's pages, and beside them what the browser fetches by itself.

``streamlit run app/serve.py`` starts it, as ``python -m mimic_core app`` does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

# ``streamlit run`` puts only this file's folder on the search path; the packages are one level up.
ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

import streamlit as st  # noqa: E402 - after the search path
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402
from starlette.routing import Route  # noqa: E402

from app.cache.served import ROUTE, SERVED  # noqa: E402

# An address changes with what is at it; an hour bounds what a browser keeps of a closed run.
_KEEP = "private, max-age=3600, immutable"


async def served(request: Request) -> Response:
    """One picture or packed chart; 404 with the reason where there is none."""
    name = request.path_params["name"]
    tag = f'"{name}"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": _KEEP})
    body = await asyncio.get_running_loop().run_in_executor(SERVED.pool, SERVED.body, name)
    if body is None or body.missing:
        said = b"this picture was made before the server was started; reload the page"
        return Response(
            said if body is None else body.data,
            404,
            media_type="text/plain; charset=utf-8",
            headers={"Cache-Control": "no-store"},
        )
    headers = {"ETag": tag, "Cache-Control": _KEEP, "X-Content-Type-Options": "nosniff"}
    if body.encoding:
        headers["Content-Encoding"] = body.encoding
    return Response(body.data, media_type=body.media_type, headers=headers)


app = st.App("main.py", routes=[Route(ROUTE, served)])
