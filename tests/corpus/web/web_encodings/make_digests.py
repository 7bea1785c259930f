"""Makes digests.json: what a browser's TextDecoder gives for every sequence of every encoding.

    apt-get install chromium && python tests/corpus/web/web_encodings/make_digests.py [ENCODING …]

Chromium 156 was used. It reads four sequences of Big5 wrongly, those with two code points (WHATWG Encoding Standard,
"Big5 decoder", step 3.3); they are replaced by what the standard says. Each sequence has a decoder of its own, because
that of EUC-JP keeps a flag that the standard clears ("EUC-JP decoder", step 5.5); the noise avoids that flag.
"""

import base64
import hashlib
import html
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))
import encoding_sequences as asked  # noqa: E402

CHROMIUM = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"),
)
# What Chromium gives, and what the standard does.
BIG5 = (
    *(("\x93\udf04", "\xca\u0304"), ("\x93\udf0c", "\xca\u030c")),
    *(("\xb3\udf04", "\xea\u0304"), ("\xb3\udf0c", "\xea\u030c")),
)
PAGE = """<html><body><pre id="out"></pre><script>
const all = Uint8Array.from(atob("ALL"), c => c.charCodeAt(0)), lengths = LENGTHS, label = "LABEL";
let position = 0, out = [];
for (const length of lengths) {
  const text = new TextDecoder(label, {ignoreBOM: true}).decode(all.subarray(position, position + length));
  let units = "";
  for (let i = 0; i < text.length; i++) units += ("000" + text.charCodeAt(i).toString(16)).slice(-4);
  out.push(units);
  position += length;
}
document.getElementById("out").textContent = out.join(" ");
</script></body></html>"""
LABELS = """<html><body><pre id="out"></pre><script>
const found = {};
for (const label of LABEL_LIST) try { found[label] = new TextDecoder(label).encoding } catch { found[label] = null }
document.getElementById("out").textContent = JSON.stringify(found);
</script></body></html>"""


def show(page: str) -> str:
    """Returns what the script of a page wrote."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "page.html").write_text(page)
        command = [*CHROMIUM, f"--user-data-dir={folder}/profile", f"file://{folder}/page.html"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return html.unescape(re.search(r'<pre id="out">(.*?)</pre>', shown, re.DOTALL).group(1))


def decode(encoding: str, sequences: list[bytes]) -> list[str]:
    """Returns the text of each sequence."""
    page = PAGE.replace("ALL", base64.b64encode(b"".join(sequences)).decode()).replace("LABEL", encoding)
    units = show(page.replace("LENGTHS", json.dumps(list(map(len, sequences))))).split(" ")
    texts = [bytes.fromhex(each).decode("utf-16-be", "surrogatepass") for each in units]
    if encoding == "big5":
        for wrong, right in BIG5:
            texts = [text.replace(wrong, right) for text in texts]
    return texts


def digests(encodings: list[str]) -> dict[str, dict[str, str]]:
    """Returns encoding → digests of its table and noise, and of the page with its characters."""
    found = {}
    for encoding in encodings:
        sequences = asked.sequences(encoding)
        texts = decode(encoding, sequences)
        (shown,) = decode(encoding, [asked.page(encoding, asked.characters(sequences, texts), "")])
        found[encoding] = {
            "sequences": asked.digest_of(texts),
            "page": asked.digest_of([asked.without_layout(shown, is_markup=True)]),
        }
        print(encoding, found[encoding])
    return found


if __name__ == "__main__":
    import webencodings.labels

    place = FOLDER / "digests.json"
    made = json.loads(place.read_text()) if place.exists() else {"encodings": {}}
    labels = show(LABELS.replace("LABEL_LIST", json.dumps(sorted(webencodings.labels.LABELS)), 1))
    made["labels"] = hashlib.sha256(labels.encode()).hexdigest()
    made["encodings"] |= digests(sys.argv[1:] or list(asked.ENCODINGS))
    place.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
