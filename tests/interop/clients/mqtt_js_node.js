// mqtt.js in Node: `node mqtt_js_node.js URL`. Within TLS it trusts the file that NODE_EXTRA_CA_CERTS names.
import mqtt from 'mqtt'
import { play } from './mqtt_js.js'

await play(mqtt, process.argv[2], (line) => console.log(line))
process.exit(0)
