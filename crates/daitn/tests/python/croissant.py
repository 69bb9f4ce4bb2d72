"""mlcroissant, the reference validator, reads a dataset descriptor. Usage: croissant.py FILE. Fails on any error."""

import json
import sys

import mlcroissant

dataset = mlcroissant.Dataset(jsonld=sys.argv[1])
issues = dataset.metadata.ctx.issues
print(json.dumps({"name": dataset.metadata.name, "errors": sorted(issues.errors), "warnings": sorted(issues.warnings)}))
sys.exit(1 if issues.errors else 0)
