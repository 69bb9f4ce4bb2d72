"""openapi-spec-validator reads the gateway's OpenAPI document. Usage: openapi.py FILE. Fails on any error."""

import json
import sys

from openapi_spec_validator import validate

document = json.load(open(sys.argv[1]))
validate(document)
print(json.dumps({"openapi": document["openapi"], "paths": len(document["paths"])}))
