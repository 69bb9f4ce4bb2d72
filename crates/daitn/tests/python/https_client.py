"""The standard library's HTTPS client against a gateway with a certificate.

Usage: https_client.py URL CA_FILE KEY_FILE. Prints one JSON object: what REST and the Open Inference Protocol answered,
how a client ended that does not know the certificate, and how one did that speaks plain HTTP.
"""

import http.client
import json
import ssl
import sys
import urllib.error
import urllib.request

url, ca_file, key_file = sys.argv[1:]
key = open(key_file).read().strip()


def ask(path, context):
    request = urllib.request.Request(url + path, headers={"authorization": "Bearer " + key})
    with urllib.request.urlopen(request, context=context, timeout=20) as answer:
        return json.load(answer)


trusting = ssl.create_default_context(cafile=ca_file)
found = {"rest": ask("/v1/status", trusting), "oip": ask("/v2", trusting)}
try:
    ask("/v1/status", ssl.create_default_context())
    found["untrusted"] = "answered"
except urllib.error.URLError as error:
    found["untrusted"] = type(error.reason).__name__
host, port = url.removeprefix("https://").split(":")
plain = http.client.HTTPConnection(host, int(port), timeout=20)
try:
    plain.request("GET", "/v1/status", headers={"authorization": "Bearer " + key})
    status = plain.getresponse().status
    found["plain"] = "refused" if status == 400 else f"answered with {status}"
except (http.client.HTTPException, ConnectionError):
    found["plain"] = "refused"
print(json.dumps(found))
