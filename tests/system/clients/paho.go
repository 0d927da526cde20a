// SPDX-License-Identifier: Apache-2.0

// The scenarios of test_clients.py with Eclipse Paho for Go.
// Usage: paho ADDRESS qos|retained|will|durable|takeover
package main

import (
	"fmt"
	"os"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

const patience = 20 * time.Second

var address string

func fail(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func check(what string, t mqtt.Token) {
	if !t.WaitTimeout(patience) {
		fail("%s: no answer", what)
	}
	if t.Error() != nil {
		fail("%s: %v", what, t.Error())
	}
}

func options(id string, clean bool) *mqtt.ClientOptions {
	return mqtt.NewClientOptions().AddBroker("tcp://" + address).SetClientID(id).SetCleanSession(clean).
		SetAutoReconnect(false).SetProtocolVersion(4).SetOrderMatters(true)
}

func connect(o *mqtt.ClientOptions) mqtt.Client {
	c := mqtt.NewClient(o)
	check("connect", c.Connect())
	return c
}

type inbox chan mqtt.Message

func newInbox() inbox {
	return make(inbox, 1000)
}

func (in inbox) handler(_ mqtt.Client, m mqtt.Message) {
	in <- m
}

func (in inbox) expect(topic, payload string, qos byte, retained bool) {
	select {
	case m := <-in:
		if m.Topic() != topic || string(m.Payload()) != payload || m.Qos() != qos || m.Retained() != retained {
			fail("got %s %q qos %d retained %v, expected %s %q qos %d retained %v", m.Topic(), m.Payload(), m.Qos(),
				m.Retained(), topic, payload, qos, retained)
		}
	case <-time.After(patience):
		fail("no message, expected %s %q", topic, payload)
	}
}

func (in inbox) expectNothing() {
	select {
	case m := <-in:
		fail("got %s %q, expected nothing", m.Topic(), m.Payload())
	case <-time.After(300 * time.Millisecond):
	}
}

func qos() {
	in := newInbox()
	sub := connect(options("go-sub", true))
	pub := connect(options("go-pub", true))
	check("subscribe", sub.Subscribe("go/qos/+", 2, in.handler))
	for q := byte(0); q <= 2; q++ {
		for i := 0; i < 50; i++ {
			check("publish", pub.Publish("go/qos/t", q, false, fmt.Sprintf("%d-%d", q, i)))
		}
		for i := 0; i < 50; i++ {
			in.expect("go/qos/t", fmt.Sprintf("%d-%d", q, i), q, false)
		}
	}
	check("unsubscribe", sub.Unsubscribe("go/qos/+"))
	check("publish", pub.Publish("go/qos/t", 1, false, "late"))
	in.expectNothing()
	sub.Disconnect(100)
	pub.Disconnect(100)
}

func retained() {
	pub := connect(options("go-pub", true))
	check("publish", pub.Publish("go/ret/a", 1, true, "kept"))
	check("publish", pub.Publish("go/ret/b", 2, true, "kept too"))
	in := newInbox()
	sub := connect(options("go-sub", true))
	check("subscribe", sub.Subscribe("go/ret/a", 1, in.handler))
	in.expect("go/ret/a", "kept", 1, true)
	check("subscribe", sub.Subscribe("go/ret/b", 2, in.handler))
	in.expect("go/ret/b", "kept too", 2, true)
	check("publish", pub.Publish("go/ret/a", 1, true, ""))
	in.expect("go/ret/a", "", 1, false)
	check("publish", pub.Publish("go/ret/b", 1, true, ""))
	in.expect("go/ret/b", "", 1, false)
	again := newInbox()
	check("unsubscribe", sub.Unsubscribe("go/ret/a"))
	check("subscribe", sub.Subscribe("go/ret/a", 1, again.handler))
	again.expectNothing()
	sub.Disconnect(100)
	pub.Disconnect(100)
}

// The takeover ends the first connection without DISCONNECT: its will goes out.
func will() {
	in := newInbox()
	sub := connect(options("go-sub", true))
	check("subscribe", sub.Subscribe("go/will", 1, in.handler))
	connect(options("go-will", true).SetWill("go/will", "gone", 1, false))
	second := connect(options("go-will", true))
	in.expect("go/will", "gone", 1, false)
	second.Disconnect(100)
	polite := connect(options("go-will", true).SetWill("go/will", "not sent", 1, false))
	polite.Disconnect(100)
	in.expectNothing()
	sub.Disconnect(100)
}

func durable() {
	in := newInbox()
	o := options("go-dur", false).SetDefaultPublishHandler(in.handler)
	sub := connect(o)
	check("subscribe", sub.Subscribe("go/dur/#", 2, in.handler))
	sub.Disconnect(100)
	pub := connect(options("go-pub", true))
	for i := 0; i < 100; i++ {
		check("publish", pub.Publish("go/dur/t", byte(1+i%2), false, fmt.Sprintf("%d", i)))
	}
	sub = connect(o)
	for i := 0; i < 100; i++ {
		in.expect("go/dur/t", fmt.Sprintf("%d", i), byte(1+i%2), false)
	}
	check("publish", pub.Publish("go/dur/t", 1, false, "live"))
	in.expect("go/dur/t", "live", 1, false)
	in.expectNothing()
	check("unsubscribe", sub.Unsubscribe("go/dur/#"))
	sub.Disconnect(100)
	pub.Disconnect(100)
}

func takeover() {
	in := newInbox()
	lost := make(chan bool, 1)
	first := connect(options("go-over", false).SetDefaultPublishHandler(in.handler).
		SetConnectionLostHandler(func(mqtt.Client, error) { lost <- true }))
	check("subscribe", first.Subscribe("go/over", 1, in.handler))
	second := connect(options("go-over", false).SetDefaultPublishHandler(in.handler))
	select {
	case <-lost:
	case <-time.After(patience):
		fail("the first connection is still there")
	}
	pub := connect(options("go-pub", true))
	check("publish", pub.Publish("go/over", 1, false, "to the second"))
	in.expect("go/over", "to the second", 1, false)
	in.expectNothing()
	second.Disconnect(100)
	pub.Disconnect(100)
	connect(options("go-over", true)).Disconnect(100)
}

func main() {
	scenarios := map[string]func(){"qos": qos, "retained": retained, "will": will, "durable": durable,
		"takeover": takeover}
	if len(os.Args) != 3 || scenarios[os.Args[2]] == nil {
		fail("usage: paho ADDRESS SCENARIO")
	}
	address = os.Args[1]
	scenarios[os.Args[2]]()
	fmt.Println("ok")
}
