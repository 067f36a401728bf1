// Reads From fields with nodemailer: see read.py.
const parse = require("nodemailer/lib/addressparser");
const flat = (list) => list.flatMap((entry) => (entry.group ? flat(entry.group) : [entry.address]));
for (const line of require("fs").readFileSync(0, "latin1").split("\n")) {
  if (!line) continue;
  const value = Buffer.from(line, "base64").toString("utf8").replace(/\r?\n/g, "");
  let found = [];
  try {
    found = flat(parse(value));
  } catch (err) {} // it shows nothing, then
  console.log(JSON.stringify({ nodemailer: found }));
}
