// SPDX-License-Identifier: Apache-2.0
'use strict';
// The scenarios of test_clients.py with MQTT.js.
// Usage: node mqttjs.js ADDRESS qos|retained|will|durable|takeover
const mqtt = require('mqtt');
const assert = require('assert');

const [address, scenario] = process.argv.slice(2);
const PATIENCE = 20000;

function connect(clientId, clean, more) {
    return mqtt.connectAsync('mqtt://' + address,
        Object.assign({ clientId, clean, reconnectPeriod: 0, protocolVersion: 4 }, more));
}

class Inbox {
    constructor(client) {
        this.messages = [];
        this.waiting = null;
        client.on('message', (topic, payload, packet) => {
            this.messages.push({ topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain });
            if (this.waiting) {
                this.waiting();
            }
        });
    }

    async next(ms) {
        const end = Date.now() + ms;
        while (this.messages.length === 0 && Date.now() < end) {
            await new Promise((resolve) => {
                const timer = setTimeout(resolve, end - Date.now());
                this.waiting = () => { clearTimeout(timer); resolve(); };
            });
            this.waiting = null;
        }
        return this.messages.shift();
    }

    async expect(topic, payload, qos, retain) {
        assert.deepStrictEqual(await this.next(PATIENCE), { topic, payload, qos, retain });
    }

    async expectNothing() {
        assert.strictEqual(await this.next(300), undefined);
    }
}

const scenarios = {
    async qos() {
        const sub = await connect('js-sub', true);
        const pub = await connect('js-pub', true);
        const inbox = new Inbox(sub);
        const granted = await sub.subscribeAsync({ 'js/qos/+': { qos: 2 }, 'js/other': { qos: 0 } });
        assert.deepStrictEqual(granted.map((g) => g.qos), [2, 0]);
        for (const qos of [0, 1, 2]) {
            for (let i = 0; i < 50; i++) {
                await pub.publishAsync('js/qos/t', `${qos}-${i}`, { qos });
            }
            for (let i = 0; i < 50; i++) {
                await inbox.expect('js/qos/t', `${qos}-${i}`, qos, false);
            }
        }
        await sub.unsubscribeAsync('js/qos/+');
        await pub.publishAsync('js/qos/t', 'late', { qos: 1 });
        await inbox.expectNothing();
        await sub.endAsync();
        await pub.endAsync();
    },

    async retained() {
        const pub = await connect('js-pub', true);
        await pub.publishAsync('js/ret/a', 'kept', { qos: 1, retain: true });
        const sub = await connect('js-sub', true);
        const inbox = new Inbox(sub);
        await sub.subscribeAsync('js/ret/+', { qos: 2 });
        await inbox.expect('js/ret/a', 'kept', 1, true);
        await pub.publishAsync('js/ret/a', '', { qos: 1, retain: true });
        await inbox.expect('js/ret/a', '', 1, false);
        await sub.unsubscribeAsync('js/ret/+');
        await sub.subscribeAsync('js/ret/+', { qos: 2 });
        await inbox.expectNothing();
        await sub.endAsync();
        await pub.endAsync();
    },

    async will() {
        const sub = await connect('js-sub', true);
        const inbox = new Inbox(sub);
        await sub.subscribeAsync('js/will', { qos: 2 });
        const dying = await connect('js-will', true,
            { will: { topic: 'js/will', payload: Buffer.from('gone'), qos: 2, retain: false } });
        dying.stream.destroy();
        await inbox.expect('js/will', 'gone', 2, false);
        const polite = await connect('js-will', true,
            { will: { topic: 'js/will', payload: Buffer.from('not sent'), qos: 1, retain: false } });
        await polite.endAsync();
        await inbox.expectNothing();
        await sub.endAsync();
    },

    async durable() {
        let sub = await connect('js-dur', false);
        await sub.subscribeAsync('js/dur/#', { qos: 2 });
        await sub.endAsync();
        const pub = await connect('js-pub', true);
        for (let i = 0; i < 100; i++) {
            await pub.publishAsync('js/dur/t', String(i), { qos: i < 50 ? 1 : 2 });
        }
        // QoS 1 first: MQTT.js gives QoS 2 messages to the user at PUBREL only.
        // Messages may stand right behind CONNACK: listen before the connection stands.
        sub = mqtt.connect('mqtt://' + address,
            { clientId: 'js-dur', clean: false, reconnectPeriod: 0, protocolVersion: 4 });
        const inbox = new Inbox(sub);
        const connack = await new Promise((resolve) => sub.once('connect', resolve));
        assert.strictEqual(connack.sessionPresent, true);
        for (let i = 0; i < 100; i++) {
            await inbox.expect('js/dur/t', String(i), i < 50 ? 1 : 2, false);
        }
        await pub.publishAsync('js/dur/t', 'live', { qos: 1 });
        await inbox.expect('js/dur/t', 'live', 1, false);
        await inbox.expectNothing();
        await sub.endAsync();
        await pub.endAsync();
    },

    async takeover() {
        const first = await connect('js-over', false);
        const closed = new Promise((resolve) => first.once('close', resolve));
        await first.subscribeAsync('js/over', { qos: 1 });
        const second = await connect('js-over', false);
        const inbox = new Inbox(second);
        await closed;
        const pub = await connect('js-pub', true);
        await pub.publishAsync('js/over', 'to the second', { qos: 1 });
        await inbox.expect('js/over', 'to the second', 1, false);
        await inbox.expectNothing();
        await second.endAsync();
        await pub.endAsync();
    },
};

const timer = setTimeout(() => { console.error('time-out'); process.exit(1); }, 2 * PATIENCE);
scenarios[scenario]().then(() => {
    clearTimeout(timer);
    console.log('ok');
    process.exit(0);
}, (e) => {
    console.error(e);
    process.exit(1);
});
