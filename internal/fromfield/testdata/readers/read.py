# Reads From fields with Python's email package: one base64 value a line on standard
# input, one line of JSON for each, with the addresses that each reader finds.
import base64, email, email.header, email.policy, email.utils, json, sys


def legacy(value):
    text = value.decode("utf-8", "surrogateescape")
    return [a for _, a in email.utils.getaddresses([text])]


def modern(value):
    message = email.message_from_bytes(b"From: " + value + b"\r\n\r\n", policy=email.policy.default)
    return [a.addr_spec for a in message["From"].addresses]


def decoded(value):
    text = value.decode("utf-8", "replace")
    text = str(email.header.make_header(email.header.decode_header(text)))
    return [a for _, a in email.utils.getaddresses([text])]


for line in sys.stdin:
    out = {}
    for name, reader in (("email.utils", legacy), ("email.policy", modern), ("email.header", decoded)):
        try:
            out[name] = [a.encode("utf-8", "replace").decode() for a in reader(base64.b64decode(line))]
        except Exception:  # it shows nothing, then
            out[name] = []
    print(json.dumps(out))
