#!/usr/bin/env bash
# Makes plot.min.js and plot.LICENSE.txt again: Observable Plot and the parts of D3 that it needs, nothing else.
# Needs node and npm; run it only to upgrade, then read the diff of the licences.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund --save-exact @observablehq/plot@0.6.17 d3@7.9.0 esbuild@0.28.2
marks="plot, areaY, axisX, axisY, barX, dot, gridX, gridY, line, ruleX, ruleY, text, tickX, tip, pointer, pointerY"
echo "export {$marks} from \"@observablehq/plot\";" >entry.js
banner='/*! Observable Plot 0.6.17 (c) 2020-2025 Observable, Inc. and D3 7.9.0 (c) 2010-2023 Mike Bostock, ISC License: permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted, provided that the above copyright notice and this permission notice appear in all copies. THE SOFTWARE IS PROVIDED "AS IS" WITHOUT WARRANTY. Includes d3-ease (BSD-3-Clause, (c) 2001 Robert Penner) and ColorBrewer schemes (Apache-style, (c) 2002 Cynthia Brewer, Mark Harrower, and The Pennsylvania State University). */'
npx esbuild entry.js --bundle --minify --format=iife --global-name=Plot --legal-comments=none --charset=utf8 \
  --banner:js="$banner" --outfile="$here/plot.min.js" --metafile=meta.json --log-level=warning
node -e '
  const fs = require("fs");
  const inputs = Object.entries(require("./meta.json").outputs).flatMap(([, o]) => Object.entries(o.inputs));
  const names = new Set(inputs.filter(([, v]) => v.bytesInOutput > 0 )
    .map(([k]) => (k.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/) || [])[1]).filter(Boolean));
  for (const name of [...names].sort()) {
    const version = require(`./node_modules/${name}/package.json`).version;
    console.log(`==== ${name} ${version} ====\n\n${fs.readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim()}\n`);
  }' >"$here/plot.LICENSE.txt"
