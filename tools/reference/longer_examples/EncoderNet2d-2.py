import mdnc

net = mdnc.modules.resnet.EncoderNet2d(64, [2, 2, 2, 2, 2], in_planes=3, out_length=None)
print('The number of convolutional layers along the depth is {0}.'.format(net.nlayers))
mdnc.contribs.torchsummary.summary(net, (3, 64, 63), device='cpu')
