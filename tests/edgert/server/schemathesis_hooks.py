"""What schemathesis is told beside the document: requests that name a model name one that there is."""

import os
from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        body["model"] = os.environ["EDGERT_TEST_MODEL"]
    return body
