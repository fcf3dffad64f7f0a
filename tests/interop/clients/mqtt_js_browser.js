// mqtt.js in headless Chromium: `node mqtt_js_browser.js WEBSOCKET_URL`. The page and its scripts come from a server of this
// process, so the page has an origin of its own, as a web site has.
import { createServer } from 'node:http'
import { readFile } from 'node:fs/promises'
import puppeteer from 'puppeteer-core'

const [, , url] = process.argv
const here = new URL('.', import.meta.url)
const page = `<!doctype html><script src="/mqtt.min.js"></script><script type="module">
import { play } from '/mqtt_js.js'
play(window.mqtt, ${JSON.stringify(url)}, (line) => window.report(line))
</script>`
const files = {
  '/': ['text/html', page],
  '/mqtt_js.js': ['text/javascript', await readFile(new URL('mqtt_js.js', here))],
  '/mqtt.min.js': ['text/javascript', await readFile(new URL('node_modules/mqtt/dist/mqtt.min.js', here))],
}
const server = createServer((request, response) => {
  const [type, body] = files[request.url] ?? ['text/plain', '']
  response.writeHead(files[request.url] ? 200 : 404, { 'content-type': type }).end(body)
})
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
// By a pipe: the browser ends with this process, however that ends.
const args = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage']
const browser = await puppeteer.launch({ executablePath, args, pipe: true })
const tab = await browser.newPage()
tab.on('pageerror', (error) => console.error(error.message))
const ended = new Promise((resolve) => {
  tab.exposeFunction('report', (line) => {
    // Behind the last line nobody waits for this process any more: the browser is closed before it.
    if (line === 'end') resolve()
    else console.log(line)
  }).then(() => tab.goto(`http://127.0.0.1:${server.address().port}/`))
})
await ended
await browser.close()
console.log('end')
server.close()
process.exit(0)
