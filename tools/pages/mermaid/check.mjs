// Parses pictures with the real mermaid parser: a JSON list of texts comes in, a list of errors (or null) goes out.
import DOMPurify from "dompurify";
import mermaid from "mermaid";

// The parser cleans labels of HTML, for which it wants a browser. Whether a picture parses does not depend on that.
DOMPurify.addHook = () => {};
DOMPurify.sanitize = (text) => text;

let input = "";
for await (const chunk of process.stdin) input += chunk;
const verdicts = [];
for (const text of JSON.parse(input)) {
  try {
    await mermaid.parse(text);
    verdicts.push(null);
  } catch (error) {
    verdicts.push(String(error.message ?? error));
  }
}
console.log(JSON.stringify(verdicts));
